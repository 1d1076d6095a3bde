// Attention of rows with one query each, read from the blocks of the KV cache where they lie.
//
// The work is cut by KV heads and runs: keys of one row, or of a prefix that some rows share. A
// piece of work converts a tile of keys to floats at a time, and keeps a running softmax (Milakov
// and Gimelshein 2018, arXiv:1805.02867) for each of the queries that see them. What several runs
// found for a row is merged in the end.

struct AttendArgs {
    const void* q;      // [R, H, D]
    void* out;          // [R, H, value_dim]
    const void* cache;  // [2, N, block_size, K, D]; or [1, ...], values being parts of keys
    const int32_t* block_table;
    const int32_t* seq_lens;  // [R], 1 or more
    const float* slopes;      // [H] of ALiBi, or null
    const float* sinks;       // [H], or null
    Cache places;             // plane_stride 0: values are parts of keys
    int64_t table_stride, num_rows, num_heads, num_kv_heads, head_dim, value_dim;
    int64_t window;  // keys that a query sees; 0: all
    int64_t num_threads;
    // Rows [members] that share their first blocks: prefix i is that of the rows from its
    // first_member to that of the next. There is no window then.
    const int64_t* members;
    const int64_t* first_member;  // [num_prefixes + 1]
    const int64_t* prefix_lens;   // [num_prefixes], keys, all of which the rows see
    int64_t num_prefixes;
    float scale, soft_cap;  // soft_cap 0: none
};

constexpr int64_t TILE_VALUES = 4096;  // of a tile's keys, and as many of values: they stay in L1
constexpr int64_t SHORTEST_RUN = 256;  // keys; shorter runs cost more to merge than they gain
constexpr int64_t MOST_SHARING = 16;   // rows of one piece of work
constexpr int SOME_QUERIES = 8;        // which are multiplied together

// Keys of one row, or of some that share them.
struct Run {
    const int64_t* rows;
    int64_t num_rows, first, last;
    int64_t part;  // of the first row; those of the other rows follow
};

// All runs. What a run finds for one of its rows is a part; a row's parts are a linked list.
struct Runs {
    std::vector<Run> runs;
    std::vector<int64_t> rows;       // 0, 1, 2, ...
    std::vector<int64_t> first_part;  // of each row; -1: none
    std::vector<int64_t> next_part;   // of each part; -1: it is its row's last

    void add(const int64_t* rows, int64_t num_rows, int64_t first, int64_t last) {
        runs.push_back({rows, num_rows, first, last, static_cast<int64_t>(next_part.size())});
        for (int64_t i = 0; i < num_rows; i++) {
            next_part.push_back(first_part[rows[i]]);
            first_part[rows[i]] = next_part.size() - 1;
        }
    }

    int64_t num_keys() const {
        int64_t count = 0;
        for (const Run& run : runs) count += run.last - run.first;
        return count;
    }

    // Whether it has all keys that its row sees.
    bool is_whole(const Run& run) const {
        return run.num_rows == 1 && first_part[run.rows[0]] == run.part && next_part[run.part] < 0;
    }
};

// What one thread works with.
struct Scratch {
    std::vector<float> queries, keys, values, matrix, scores, sums;
};

// Two vectors whose values alternate: of their first halves, and of their second ones.
INLINE void interleave(Vec one, Vec other, Vec* first, Vec* second) {
    Ints low, high;
    for (int i = 0; i < W / 2; i++) {
        low[2 * i] = i;
        low[2 * i + 1] = W + i;
        high[2 * i] = W / 2 + i;
        high[2 * i + 1] = W + W / 2 + i;
    }
    *first = __builtin_shuffle(one, other, low);
    *second = __builtin_shuffle(one, other, high);
}

// acc[i] summed over its lanes, in lane i.
template <int COUNT>
INLINE Vec sums_of(const Vec* acc) {
    if constexpr (COUNT == 1) {
        return acc[0];
    } else {
        Vec half[COUNT / 2], first, second;
        for (int i = 0; i < COUNT / 2; i++) {
            interleave(acc[i], acc[i + COUNT / 2], &first, &second);
            half[i] = first + second;
        }
        return sums_of<COUNT / 2>(half);
    }
}

// W vectors as a matrix, transposed: each round is a perfect shuffle of all its values.
INLINE void transpose(Vec* rows) {
    Vec shuffled[W];
    for (int round = W; round > 1; round /= 2) {
        for (int i = 0; i < W / 2; i++)
            interleave(rows[i], rows[i + W / 2], &shuffled[2 * i], &shuffled[2 * i + 1]);
        for (int i = 0; i < W; i++) rows[i] = shuffled[i];
    }
}

// A tile of keys or values is [size / W, tokens, W]: what one instruction takes lies together.

// The products of a query with the W keys from `keys` on.
INLINE Vec products(const float* query, const float* keys, int64_t size, int64_t tokens) {
    Vec acc[W] = {};
    for (int64_t i = 0; i < size; i += W) {
        const Vec part = load(query + i);
#pragma GCC unroll 16
        for (int key = 0; key < W; key++) acc[key] += part * load(keys + i * tokens + key * W);
    }
    return sums_of<W>(acc);
}

// The same for COUNT queries, each `size` values, and keys as a matrix [size, W]: several queries
// pay for its transposition. The products of a query lie `tokens` apart from those of the one
// before.
template <int COUNT>
INLINE void products_of_some(
    const float* queries, const float* matrix, int64_t size, int64_t tokens, float* products
) {
    Vec acc[COUNT] = {};
    for (int64_t i = 0; i < size; i++) {
        const Vec keys = load(matrix + i * W);
#pragma GCC unroll 8
        for (int query = 0; query < COUNT; query++) acc[query] += queries[query * size + i] * keys;
    }
#pragma GCC unroll 8
    for (int query = 0; query < COUNT; query++) store(products + query * tokens, acc[query]);
}

// sums += weights [count] * values, for HEADS neighbouring heads and PARTS * W values of each.
// Enough of them at once that no addition waits for the one before.
template <int HEADS, int PARTS>
INLINE void add_weighted(
    float* sums, int64_t sum_size, const float* weights, const float* values, int64_t count,
    int64_t tokens
) {
    Vec acc[HEADS][PARTS];
#pragma GCC unroll 8
    for (int at = 0; at < HEADS * PARTS; at++)
        acc[at / PARTS][at % PARTS] = load(sums + at / PARTS * sum_size + at % PARTS * W);
    for (int64_t key = 0; key < count; key++) {
#pragma GCC unroll 8
        for (int at = 0; at < HEADS * PARTS; at++)
            acc[at / PARTS][at % PARTS] += all(weights[at / PARTS * tokens + key]) *
                                           load(values + (at % PARTS * tokens + key) * W);
    }
#pragma GCC unroll 8
    for (int at = 0; at < HEADS * PARTS; at++)
        store(sums + at / PARTS * sum_size + at % PARTS * W, acc[at / PARTS][at % PARTS]);
}

INLINE void rescale(float* sums, float factor, int64_t size) {
    for (int64_t i = 0; i < size; i += W) store(sums + i, load(sums + i) * factor);
}

template <typename T>
struct Attention {
    const AttendArgs& args;
    const int64_t num_grouped = args.num_heads / args.num_kv_heads;
    const int64_t size = padded(args.head_dim), value_size = padded(args.value_dim);
    const int64_t tile = std::max<int64_t>(W, std::min<int64_t>(64, TILE_VALUES / size / W * W));
    const int64_t sum_size = value_size + 2;  // weighted values; then largest score, sum of weights

    Runs plan() const {
        Runs plan;
        plan.rows.resize(args.num_rows);
        std::iota(plan.rows.begin(), plan.rows.end(), 0);
        plan.first_part.assign(args.num_rows, -1);
        std::vector<int64_t> firsts(args.num_rows, 0);  // each row's first key that is its own
        int64_t total = 0;
        for (int64_t row = 0; row < args.num_rows; row++) {
            if (args.window) firsts[row] = std::max<int64_t>(0, args.seq_lens[row] - args.window);
            total += args.seq_lens[row] - firsts[row];
        }
        // four pieces of work a thread, so that they end at about the same time
        const int64_t share = total * args.num_kv_heads / (4 * args.num_threads);
        const int64_t most = args.num_threads == 1 ? total : std::max(share, SHORTEST_RUN);
        for (int64_t i = 0; i < args.num_prefixes; i++) {
            const int64_t *member = args.members + args.first_member[i],
                          *end = args.members + args.first_member[i + 1];
            for (; member < end; member += MOST_SHARING) {
                const int64_t count = std::min<int64_t>(MOST_SHARING, end - member);
                split(plan, member, count, 0, args.prefix_lens[i], most / count);
                for (int64_t j = 0; j < count; j++) firsts[member[j]] = args.prefix_lens[i];
            }
        }
        for (int64_t row = 0; row < args.num_rows; row++)
            split(plan, &plan.rows[row], 1, firsts[row], args.seq_lens[row], most);
        return plan;
    }

    static void split(
        Runs& plan, const int64_t* rows, int64_t num_rows, int64_t first, int64_t last, int64_t most
    ) {
        const int64_t length = last - first, longest = std::max(most, SHORTEST_RUN);
        const int64_t count = (length + longest - 1) / longest;
        for (int64_t i = 0; i < count; i++)
            plan.add(rows, num_rows, first + length * i / count, first + length * (i + 1) / count);
    }

    // Leaves what the run gives each of its rows in `sums`: [G, sum_size], `stride` floats apart.
    void attend(
        const Run& run, int64_t kv_head, float* sums, int64_t stride, Scratch& scratch
    ) const {
        const int64_t num_queries = run.num_rows * num_grouped;
        scratch.queries.resize(num_queries * size);
        scratch.keys.resize(tile * size);
        scratch.values.resize(args.places.plane_stride ? tile * value_size : 0);
        scratch.matrix.resize(size * W);
        scratch.scores.resize(num_queries * tile);
        for (int64_t i = 0; i < run.num_rows; i++) {
            read_queries(run.rows[i], kv_head, &scratch.queries[i * num_grouped * size]);
            for (int64_t g = 0; g < num_grouped; g++) clear(sums + i * stride + g * sum_size);
        }
        const float* values = (args.places.plane_stride ? scratch.values : scratch.keys).data();
        for (int64_t first = run.first; first < run.last; first += tile) {
            const int64_t count = std::min(tile, run.last - first);
            read_tile(run.rows[0], kv_head, first, count, run.last, scratch);
            multiply(num_queries, count, scratch);
            for (int64_t i = 0; i < run.num_rows; i++) {
                float* own = sums + i * stride;
                float* weights = &scratch.scores[i * num_grouped * tile];
                for (int64_t g = 0; g < num_grouped; g++)
                    weigh(run.rows[i], kv_head * num_grouped + g, first, count, weights + g * tile,
                          own + g * sum_size);
                add_values(own, weights, values, count);
            }
        }
    }

    // The products of all queries with a tile's keys, [num_queries, tile].
    void multiply(int64_t num_queries, int64_t count, Scratch& scratch) const {
        const float *queries = scratch.queries.data(), *keys = scratch.keys.data();
        for (int64_t i = 0; i < count; i += W) {
            float* scores = &scratch.scores[i];
            int64_t query = 0;
            if (num_queries >= SOME_QUERIES) {
                for (int64_t j = 0; j < size; j += W) {
                    Vec rows[W];
                    for (int k = 0; k < W; k++) rows[k] = load(keys + j * tile + (i + k) * W);
                    transpose(rows);
                    for (int k = 0; k < W; k++) store(&scratch.matrix[(j + k) * W], rows[k]);
                }
                for (; query + SOME_QUERIES <= num_queries; query += SOME_QUERIES)
                    products_of_some<SOME_QUERIES>(queries + query * size, scratch.matrix.data(),
                                                   size, tile, scores + query * tile);
            }
            for (; query < num_queries; query++)
                store(scores + query * tile,
                      products(queries + query * size, keys + i * W, size, tile));
        }
    }

    void clear(float* sums) const {
        std::fill(sums, sums + value_size, 0.0f);
        sums[value_size] = -INFINITY;
        sums[value_size + 1] = 0;
    }

    void read_queries(int64_t row, int64_t kv_head, float* queries) const {
        const T* from = static_cast<const T*>(args.q);
        from += (row * args.num_heads + kv_head * num_grouped) * args.head_dim;
        for (int64_t g = 0; g < num_grouped; g++) {
            read_row(queries + g * size, from + g * args.head_dim, args.head_dim);
            rescale(queries + g * size, args.scale, size);
        }
    }

    // Keys and values of `count` tokens from the `first` on, with zeros behind the last key.
    void read_tile(
        int64_t row, int64_t kv_head, int64_t first, int64_t count, int64_t last, Scratch& scratch
    ) const {
        const int32_t* blocks = args.block_table + row * args.table_stride;
        const int64_t block_size = args.places.block_size;
        for (int64_t i = 0; i < count;) {
            const int64_t token = first + i, offset = token % block_size;
            const int64_t some = std::min(count - i, block_size - offset);
            const T* keys = static_cast<const T*>(args.cache);
            keys += args.places.place(blocks[token / block_size], offset, kv_head);
            const int64_t later = token + tile;
            if (later < last) {
                const T* next = static_cast<const T*>(args.cache);
                next += args.places.place(blocks[later / block_size], later % block_size, kv_head);
                prefetch(next, some * args.places.token_stride);
                prefetch(next + args.places.plane_stride, some * args.places.token_stride);
            }
            read_tokens(scratch.keys.data() + i * W, keys, some, args.head_dim);
            if (args.places.plane_stride)
                read_tokens(scratch.values.data() + i * W, keys + args.places.plane_stride, some,
                            args.value_dim);
            i += some;
        }
        for (int64_t i = 0; i < size; i += W)
            for (int64_t token = count; token < padded(count); token++)
                store(scratch.keys.data() + i * tile + token * W, Vec{});
    }

    static void prefetch(const T* from, int64_t count) {
        for (int64_t i = 0; i < count; i += 64 / sizeof(T)) __builtin_prefetch(from + i);
    }

    void read_tokens(float* to, const T* from, int64_t count, int64_t dim) const {
        const int64_t stride = args.places.token_stride;
        for (int64_t i = 0; i < dim; i += W, from += W, to += tile * W) {
            if (dim - i >= W)
                for (int64_t token = 0; token < count; token++)
                    store(to + token * W, load(from + token * stride));
            else
                for (int64_t token = 0; token < count; token++)
                    store(to + token * W, load_some(from + token * stride, dim - i));
        }
    }

    // Turns one query head's products with a tile's keys into weights; what is in `sums` is scaled
    // to fit them.
    void weigh(
        int64_t row, int64_t head, int64_t first, int64_t count, float* weights, float* sums
    ) const {
        const float old_max = sums[value_size];
        Vec maxima = all(old_max);
        for (int64_t i = 0; i < count; i += W) {
            Vec scores = finished(load(weights + i), head, args.seq_lens[row] - 1 - first - i);
            if (count - i < W) scores = without_others(scores, count - i);
            store(weights + i, scores);
            maxima = larger(maxima, scores);
        }
        const float new_max = max_of(maxima);
        if (!(new_max <= old_max)) {
            const float factor = std::exp(old_max - new_max);
            rescale(sums, factor, value_size);
            sums[value_size] = new_max;
            sums[value_size + 1] *= factor;
        }
        const float shift = new_max == -INFINITY ? 0 : new_max;  // all weights are 0 then
        Vec total = {};
        for (int64_t i = 0; i < count; i += W) {
            const Vec some = exp_of(load(weights + i) - shift);
            store(weights + i, some);
            total += some;
        }
        sums[value_size + 1] += sum_of(total);
    }

    static Vec without_others(Vec scores, int64_t count) {
        for (int64_t i = count; i < W; i++) scores[i] = -INFINITY;
        return scores;
    }

    void add_values(float* sums, const float* weights, const float* values, int64_t count) const {
        for (int64_t i = 0; i < value_size;) {
            const int64_t parts = (value_size - i) / W;
            const float* from = values + i * tile;
            if (parts >= 8) {
                add_heads<1, 8>(sums + i, weights, from, count);
                i += 8 * W;
            } else if (parts >= 4) {
                add_heads<2, 4>(sums + i, weights, from, count);
                i += 4 * W;
            } else {
                add_heads<4, 1>(sums + i, weights, from, count);
                i += W;
            }
        }
    }

    template <int HEADS, int PARTS>
    void add_heads(float* sums, const float* weights, const float* values, int64_t count) const {
        int64_t g = 0;
        for (; g + HEADS <= num_grouped; g += HEADS)
            add_weighted<HEADS, PARTS>(sums + g * sum_size, sum_size, weights + g * tile, values,
                                       count, tile);
        for (; g < num_grouped; g++)
            add_weighted<1, PARTS>(sums + g * sum_size, sum_size, weights + g * tile, values, count,
                                   tile);
    }

    // Scores that are capped and have their distance's part; lane i is `distance` - i back.
    Vec finished(Vec scores, int64_t head, int64_t distance) const {
        if (args.soft_cap) scores = tanh_of(scores / args.soft_cap) * args.soft_cap;
        if (args.slopes)
            for (int i = 0; i < W; i++) scores[i] -= args.slopes[head] * (distance - i);
        return scores;
    }

    // Adds what another run gave the same row, [G, sum_size].
    void merge(float* sums, const float* others) const {
        for (int64_t g = 0; g < num_grouped; g++, sums += sum_size, others += sum_size) {
            const float most = std::fmax(sums[value_size], others[value_size]);
            if (most == -INFINITY) continue;
            const float factor = std::exp(sums[value_size] - most);
            const float its_factor = std::exp(others[value_size] - most);
            for (int64_t i = 0; i < value_size; i++)
                sums[i] = sums[i] * factor + others[i] * its_factor;
            sums[value_size] = most;
            sums[value_size + 1] =
                sums[value_size + 1] * factor + others[value_size + 1] * its_factor;
        }
    }

    void finish(int64_t row, int64_t kv_head, float* sums) const {
        for (int64_t g = 0; g < num_grouped; g++) {
            const int64_t head = kv_head * num_grouped + g;
            float* own = sums + g * sum_size;
            float total = own[value_size + 1], factor = 1;
            if (args.sinks) {  // a score that has no value
                const float most = std::fmax(own[value_size], args.sinks[head]);
                factor = std::exp(own[value_size] - most);
                total = total * factor + std::exp(args.sinks[head] - most);
            }
            rescale(own, factor / total, value_size);
            T* to = static_cast<T*>(args.out) + (row * args.num_heads + head) * args.value_dim;
            write_row(to, own, args.value_dim);
        }
    }
};

template <typename T>
static void attend_rows(const AttendArgs& args) {
    const Attention<T> attention{args};
    const Runs plan = attention.plan();
    const int64_t num_runs = plan.runs.size(), num_heads = args.num_kv_heads;
    const int64_t group_size = attention.num_grouped * attention.sum_size;
    // [parts, K, G, sum_size]; not needed where each run is all that its row sees
    const bool has_parts = num_runs != args.num_rows || args.num_prefixes;
    std::vector<float> parts(has_parts ? plan.next_part.size() * num_heads * group_size : 0);
    const int64_t work = plan.num_keys() * num_heads * attention.size;
#pragma omp parallel num_threads(args.num_threads) if (work > SMALL_WORK)
    {
        Scratch scratch;
        scratch.sums.resize(group_size);
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < num_runs * num_heads; i++) {
            const int64_t head = i / num_runs;
            const Run& run = plan.runs[i % num_runs];
            if (plan.is_whole(run)) {
                attention.attend(run, head, scratch.sums.data(), 0, scratch);
                attention.finish(run.rows[0], head, scratch.sums.data());
            } else {
                float* own = &parts[(run.part * num_heads + head) * group_size];
                attention.attend(run, head, own, num_heads * group_size, scratch);
            }
        }
        if (has_parts) {
#pragma omp for
            for (int64_t row = 0; row < args.num_rows; row++) {
                const int64_t first = plan.first_part[row];
                int64_t part = plan.next_part[first];
                if (part < 0) continue;
                for (; part >= 0; part = plan.next_part[part])
                    for (int64_t head = 0; head < num_heads; head++)
                        attention.merge(&parts[(first * num_heads + head) * group_size],
                                        &parts[(part * num_heads + head) * group_size]);
                for (int64_t head = 0; head < num_heads; head++)
                    attention.finish(row, head, &parts[(first * num_heads + head) * group_size]);
            }
        }
    }
}

extern "C" {
void attend_rows_float32(const AttendArgs* args) { attend_rows<float>(*args); }
void attend_rows_bfloat16(const AttendArgs* args) { attend_rows<BFloat16>(*args); }
void attend_rows_float16(const AttendArgs* args) { attend_rows<Float16>(*args); }
}
