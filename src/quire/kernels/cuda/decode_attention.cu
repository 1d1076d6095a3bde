// Attention of rows with one query each, from the product's q, k and v on: norms of heads (if any),
// positions, the write of k and v to the cache, and paged attention.
//
// An *item* is a row with one KV head and the query heads that share it, or a part of its keys
// where it has more than its share of all. A block takes one item after another. Its warps take
// turns at tiles of TILE keys; each asks for tiles of its own, STAGES ahead and across items, so
// that memory never waits for what a block does between items. Every warp has sums of its own,
// which are joined at the item's end.
//
// Keys and values of earlier steps do not depend on the kernel before, so the first of them are
// asked for while it runs. So are the lengths and the block table, which the kernels at the head of
// a step write: `rope_angles` lets no later kernel begin before those have ended.
//
// Products are `mma.m16n8k16` of keys, or of values turned, with up to 8 query heads as columns;
// what one product leaves is turned by `movmatrix` to be an operand of the next (PTX ISA 7.8, "Warp
// Level Matrix Multiply-Accumulate Instructions"). The online softmax is that of Milakov and
// Gimelshein 2018 (arXiv:1805.02867).
//
// Set when it is compiled: HEAD (64 or 128 values), GROUP (query heads of a KV head), KV_HEADS,
// BLOCK (tokens of a KV block), TILE (tokens multiplied at once), HAS_NORMS, WARPS, STAGES, LEAST
// (the fewest keys of a part, about), ROUNDS (a part is about 1 / ROUNDS of a block's share of the
// keys, if that is more), BLOCKS (per multiprocessor).

constexpr u32 ALL = ~0u;  // lanes
constexpr u32 THREADS = 32 * WARPS;
constexpr u32 ROW_BYTES = HEAD * 2;
constexpr u32 TOKEN_BYTES = KV_HEADS * ROW_BYTES;
constexpr u32 PLANE_BYTES = TILE * ROW_BYTES;  // keys or values of a tile
constexpr u32 INPUTS = GROUP + 4;              // rows: queries, key, value, cos, sin
constexpr u32 STAGE_BYTES = 2 * PLANE_BYTES + INPUTS * ROW_BYTES;
constexpr u32 CHUNKS = ROW_BYTES / 16;
constexpr u32 ROWS = 32 / CHUNKS;  // that a warp loads at once
constexpr u32 SLICES = HEAD / 16;  // of a product over a head's values
constexpr u32 HALF = HEAD / 2;     // value i turns with value i + HALF
constexpr u32 JOINED = HEAD + 4;   // floats; lines begin in different banks
constexpr u32 CUT = 64;            // keys; parts are multiples of that
constexpr float LOG2E = 1.4426950408889634f;
constexpr float NOTHING = -1e30f;

static_assert((HEAD == 64 || HEAD == 128) && GROUP <= 8 && LEAST % CUT == 0);
static_assert(TILE == 16 && BLOCK % TILE == 0, "lines of a product");

struct Inputs {
    const unsigned short* qkv;  // [rows, (GROUP + 2) * KV_HEADS * HEAD]
    const float *cos, *sin;     // [rows, HALF]
    const unsigned short *q_weight, *k_weight;
    const u64* slots;         // [rows]
    const u32 *block_table;   // [rows, table_width]
    const u32 *seq_lens, *order;
    char *k_cache, *v_cache;  // [blocks, BLOCK, KV_HEADS, HEAD]
    unsigned short* out;      // [rows, KV_HEADS * GROUP, HEAD]
    float *parts, *stats;     // [pairs, most_parts, GROUP, HEAD] and [.., 2]; pairs: row, KV head
    u32* counters;            // [pairs], zeros between launches
    u32 rows, table_width, most_parts;
    float q_eps, k_eps, scale;
};

__device__ __forceinline__ u32 sum_of_lanes(u32 value) {
#pragma unroll
    for (u32 step = 1; step < 32; step *= 2) value += __shfl_xor_sync(ALL, value, step);
    return value;
}

// Keys `begin` to `end` of a row, and one KV head.
struct Item {
    u32 row, length, pair, part, parts, begin, end;  // pair: of a row in the order and a KV head

    __device__ __forceinline__ u32 head() const { return pair % KV_HEADS; }
    __device__ __forceinline__ u32 tiles() const { return (end - begin + TILE - 1) / TILE; }
    __device__ __forceinline__ bool has_own() const { return end == length; }
};

// The items of a block, known 32 ahead, one per lane. They are dealt out to and fro, first parts of
// the longest rows first, so that all blocks get about as many keys.
struct Items {
    u32 first, left;  // the first of the lanes' items; a bit for each that has keys and is not done
    u32 size;         // keys of a part, about
    Item mine;

    __device__ __forceinline__ Items(const Inputs& in) {
        u32 keys = 0;
        for (u32 i = threadIdx.x % 32; i < in.rows; i += 32) keys += in.seq_lens[i];
        const u64 all = (u64)sum_of_lanes(keys) * KV_HEADS;
        const u32 even = (u32)(all / (ROUNDS * gridDim.x)) / CUT * CUT + CUT;
        size = even > LEAST ? even : LEAST;
        look_up(in, 0);
    }

    __device__ __forceinline__ void look_up(const Inputs& in, u32 from) {
        first = from;
        const u32 i = first + threadIdx.x % 32, pairs = in.rows * KV_HEADS;
        const u32 id = i * gridDim.x + (i & 1 ? gridDim.x - 1 - blockIdx.x : blockIdx.x);
        mine.begin = mine.end = 0;
        if (id < pairs * in.most_parts) {
            mine.pair = id % pairs, mine.part = id / pairs;
            mine.row = in.order[mine.pair / KV_HEADS];
            mine.length = in.seq_lens[mine.row];
            const u32 parts = (mine.length + size / 2) / size;
            const u32 count = parts < 1 ? 1 : parts < in.most_parts ? parts : in.most_parts;
            const u32 its = (mine.length + count * CUT - 1) / (count * CUT) * CUT;
            mine.parts = (mine.length + its - 1) / its;
            mine.begin = mine.part * its;
            mine.end = mine.begin + its < mine.length ? mine.begin + its : mine.length;
        }
        left = __ballot_sync(ALL, mine.begin < mine.end);
    }

    // The next one; false where none is left.
    __device__ __forceinline__ bool next(const Inputs& in, Item& item) {
        while (!left) {
            if ((u64)(first + 32) * gridDim.x >= (u64)in.rows * KV_HEADS * in.most_parts)
                return false;
            look_up(in, first + 32);
        }
        const u32 lane = __ffs(left) - 1;
        left &= left - 1;
        item = {__shfl_sync(ALL, mine.row, lane),  __shfl_sync(ALL, mine.length, lane),
                __shfl_sync(ALL, mine.pair, lane), __shfl_sync(ALL, mine.part, lane),
                __shfl_sync(ALL, mine.parts, lane), __shfl_sync(ALL, mine.begin, lane),
                __shfl_sync(ALL, mine.end, lane)};
        return true;
    }
};

// The same chunk of 8 rows lies in different banks.
__device__ __forceinline__ u32 place(u32 row, u32 chunk) {
    return row * ROW_BYTES + ((chunk ^ (row & 7)) << 4);
}

__device__ __forceinline__ void copy(u32 to, const char* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

__device__ __forceinline__ void copy_or_clear(u32 to, const char* from, bool copies) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(copies ? 16 : 0)
                 : "memory");
}

__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Wait until all but so many of the groups that this warp committed have arrived.
template <u32 PENDING>
__device__ __forceinline__ void await_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
    __syncwarp();
}

__device__ __forceinline__ u32 word_at(u32 address) {
    u32 word;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(word) : "r"(address) : "memory");
    return word;
}

__device__ __forceinline__ float2 floats_at(u32 address) {
    float2 both;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];"
                 : "=f"(both.x), "=f"(both.y)
                 : "r"(address)
                 : "memory");
    return both;
}

__device__ __forceinline__ void read(u32 (&word)[4], u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
                 : "r"(at)
                 : "memory");
}

__device__ __forceinline__ void read_turned(u32 (&word)[4], u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
                 : "r"(at)
                 : "memory");
}

__device__ __forceinline__ u32 turned(u32 word) {
    u32 other;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(other) : "r"(word));
    return other;
}

// sum += left * right.
__device__ __forceinline__ void multiply_add(float (&sum)[4], const u32 (&left)[4],
                                             const u32 (&right)[2]) {
    if (IS_FP16)
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
            "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
            : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]),
              "r"(right[1]));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
            "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
            : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]),
              "r"(right[1]));
}

__device__ __forceinline__ float power_of_2(float x) {
    float value;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(value) : "f"(x));
    return value;
}

// A warp's tiles in the order in which it will use them.
struct Stream {
    Items items;
    Item item;
    u32 tile, block;  // the next of this warp in the item, and the KV block where it is

    __device__ __forceinline__ Stream(const Inputs& in) : items(in), tile(0) {
        item.begin = item.end = 0;
    }

    __device__ __forceinline__ void find_block(const Inputs& in) {
        block = in.block_table[(u64)item.row * in.table_width + (item.begin + tile * TILE) / BLOCK];
    }

    // Go to the next tile of this warp, if there is one.
    __device__ __forceinline__ bool advance(const Inputs& in, u32 warp) {
        while (tile >= item.tiles()) {
            if (!items.next(in, item)) return false;
            tile = warp;
            if (tile < item.tiles()) find_block(in);
        }
        return true;
    }

    // Ask for it. The key and value of this step are not in the cache yet.
    __device__ __forceinline__ void ask_tile(const Inputs& in, u32 stage) {
        const u32 first = item.begin + tile * TILE, known = item.length - 1;
        const u32 lane = threadIdx.x % 32, row = lane / CHUNKS, chunk = lane % CHUNKS;
        const u64 from = ((u64)block * BLOCK + first % BLOCK + row) * TOKEN_BYTES +
                         item.head() * ROW_BYTES + chunk * 16;
        const char *keys = in.k_cache + from, *values = in.v_cache + from;
        tile += WARPS;
        if (tile < item.tiles()) find_block(in);
        const u32 at = stage + row * ROW_BYTES, turn = chunk ^ row;
        if (first + TILE <= known) {
#pragma unroll
            for (u32 i = 0; i < TILE; i += ROWS) {
                const u32 to = at + i * ROW_BYTES + ((turn ^ (i & 7)) << 4);
                copy(to, keys + i * TOKEN_BYTES);
                copy(to + PLANE_BYTES, values + i * TOKEN_BYTES);
            }
        } else {
#pragma unroll
            for (u32 i = 0; i < TILE; i += ROWS) {
                const u32 to = at + i * ROW_BYTES + ((turn ^ (i & 7)) << 4);
                const bool copies = first + row + i < known;
                copy_or_clear(to, keys + i * TOKEN_BYTES, copies);
                copy_or_clear(to + PLANE_BYTES, values + i * TOKEN_BYTES, copies);
            }
        }
    }

    // What the kernels before leave of the item.
    __device__ __forceinline__ void ask_inputs(const Inputs& in, u32 stage) const {
        const u32 lane = threadIdx.x % 32, chunk = lane % CHUNKS;
        const char* heads = (const char*)in.qkv + (u64)item.row * (GROUP + 2) * TOKEN_BYTES;
        const u64 angles = (u64)item.row * ROW_BYTES;
#pragma unroll
        for (u32 i = 0; i < INPUTS; i += ROWS) {
            const u32 row = i + lane / CHUNKS;
            const char* from = heads + (item.head() * GROUP + row) * ROW_BYTES;
            if (row == GROUP) from = heads + (GROUP * KV_HEADS + item.head()) * ROW_BYTES;
            if (row == GROUP + 1) from = heads + ((GROUP + 1) * KV_HEADS + item.head()) * ROW_BYTES;
            if (row == GROUP + 2) from = (const char*)in.cos + angles;
            if (row == GROUP + 3) from = (const char*)in.sin + angles;
            if (row < INPUTS) copy(stage + 2 * PLANE_BYTES + place(row, chunk), from + chunk * 16);
        }
    }

    __device__ __forceinline__ void ask(const Inputs& in, u32 stage, u32 warp) {
        if (advance(in, warp)) {
            if (tile == warp) ask_inputs(in, stage);
            ask_tile(in, stage);
        }
        commit();
    }
};

__device__ __forceinline__ float sum_of_lanes(float value, u32 most) {
    for (u32 step = 1; step < most; step *= 2) value += __shfl_xor_sync(ALL, value, step);
    return value;
}

// A norm's result, rounded as if it had been stored by a kernel of its own.
__device__ __forceinline__ u32 scaled(u32 both, float factor, u32 weight) {
    return pack(low_of(both) * factor * low_of(weight), high_of(both) * factor * high_of(weight));
}

__device__ __forceinline__ float squares_of(u32 both) {
    return low_of(both) * low_of(both) + high_of(both) * high_of(both);
}

// Two pairs, each a value of `low` and one of `high`.
__device__ __forceinline__ void turn(u32& low, u32& high, float2 cos, float2 sin) {
    const float a = low_of(low), b = high_of(low), c = low_of(high), d = high_of(high);
    low = pack(a * cos.x - c * sin.x, b * cos.y - d * sin.y);
    high = pack(c * cos.x + a * sin.x, d * cos.y + b * sin.y);
}

// Weights of the norms of q and k, two values each.
struct Weights {
    u32 q[HALF], k[HALF];

    __device__ __forceinline__ void load(const Inputs& in) {
        for (u32 i = threadIdx.x; HAS_NORMS && i < HALF; i += THREADS) {
            q[i] = ((const u32*)in.q_weight)[i];
            k[i] = ((const u32*)in.k_weight)[i];
        }
    }
};

// What an item begins with, of a warp that has tiles of it.
struct Heads {
    // The right operand of products, [slice][values 0 and 1, values 8 and 9]: a head to four lanes.
    u32 query[SLICES][2];
    // The row's own key and value: a lane has two values of each half of the head.
    u32 key[2], value[2];

    __device__ __forceinline__ void load(const Inputs& in, const Weights& weights, u32 stage) {
        const u32 lane = threadIdx.x % 32, head = lane / 4, column = lane % 4;
        const u32 inputs = stage + 2 * PLANE_BYTES;
        float squares = 0;
#pragma unroll
        for (u32 i = 0; i < 2 * SLICES; ++i) {
            u32& word = query[i / 2][i % 2];
            word = head < GROUP ? word_at(inputs + place(head, i) + column * 4) : 0;
            if (HAS_NORMS) squares += squares_of(word);
        }
        if (HAS_NORMS) {
            const float factor = rsqrtf(sum_of_lanes(squares, 4) / HEAD + in.q_eps);
#pragma unroll
            for (u32 i = 0; i < 2 * SLICES; ++i)
                query[i / 2][i % 2] =
                    scaled(query[i / 2][i % 2], factor, weights.q[i * 4 + column]);
        }
#pragma unroll
        for (u32 i = 0; i < SLICES; ++i) {
            const u32 at = column % 2 * 8, chunk = 2 * i + column / 2;
            turn(query[i / 2][i % 2], query[i / 2 + SLICES / 2][i % 2],
                 floats_at(inputs + place(GROUP + 2, chunk) + at),
                 floats_at(inputs + place(GROUP + 3, chunk) + at));
        }
    }

    __device__ __forceinline__ void load_own(const Inputs& in, const Weights& weights, u32 stage) {
        const u32 lane = threadIdx.x % 32 % (HALF / 2);  // a head of 64 values has half as many
        const u32 inputs = stage + 2 * PLANE_BYTES;
#pragma unroll
        for (u32 i = 0; i < 2; ++i) {
            const u32 chunk = lane / 4 + i * CHUNKS / 2, at = lane % 4 * 4;
            key[i] = word_at(inputs + place(GROUP, chunk) + at);
            value[i] = word_at(inputs + place(GROUP + 1, chunk) + at);
        }
        if (HAS_NORMS) {
            const float squares = sum_of_lanes(squares_of(key[0]) + squares_of(key[1]), HALF / 2);
            const float factor = rsqrtf(squares / HEAD + in.k_eps);
#pragma unroll
            for (u32 i = 0; i < 2; ++i)
                key[i] = scaled(key[i], factor, weights.k[i * HALF / 2 + lane]);
        }
        const u32 chunk = lane / 2, at = lane % 2 * 8;
        turn(key[0], key[1], floats_at(inputs + place(GROUP + 2, chunk) + at),
             floats_at(inputs + place(GROUP + 3, chunk) + at));
    }

    // To the cache.
    __device__ __forceinline__ void store_own(const Inputs& in, const Item& item) const {
        const u32 lane = threadIdx.x % 32;
        if (lane >= HALF / 2) return;
        const u64 to = in.slots[item.row] * TOKEN_BYTES + item.head() * ROW_BYTES + lane * 4;
#pragma unroll
        for (u32 i = 0; i < 2; ++i) {
            *(u32*)(in.k_cache + to + i * HALF * 2) = key[i];
            *(u32*)(in.v_cache + to + i * HALF * 2) = value[i];
        }
    }

    // Where a tile from the cache would have it.
    __device__ __forceinline__ void place_own(u32 stage, u32 row) const {
        const u32 lane = threadIdx.x % 32;
        if (lane < HALF / 2)
#pragma unroll
            for (u32 i = 0; i < 2; ++i) {
                const u32 at = stage + place(row, lane / 4 + i * CHUNKS / 2) + lane % 4 * 4;
                asm volatile("st.shared.u32 [%0], %1;" ::"r"(at), "r"(key[i]) : "memory");
                asm volatile("st.shared.u32 [%0], %1;" ::"r"(at + PLANE_BYTES), "r"(value[i])
                             : "memory");
            }
        __syncwarp();
    }
};

__device__ __forceinline__ float most_of_rows(float value) {
#pragma unroll
    for (u32 step = 4; step < 32; step *= 2)
        value = fmaxf(value, __shfl_xor_sync(ALL, value, step));
    return value;
}

// A warp's state of the online softmax. A lane has two heads: of the scores, of two keys; of the
// sums, two values of each 16.
struct Sums {
    float best[2], total[2], acc[SLICES][4];

    __device__ __forceinline__ Sums() : best{NOTHING, NOTHING}, total{0, 0}, acc{} {}

    // The first `keys` of a tile.
    __device__ __forceinline__ void take(const u32 (&query)[SLICES][2], u32 stage, u32 keys,
                                         float scale) {
        const u32 lane = threadIdx.x % 32, row = lane % 8, upper = lane / 8 & 1, right = lane / 16;
        float score[4] = {};
#pragma unroll
        for (u32 slice = 0; slice < SLICES; ++slice) {
            u32 left[4];
            read(left, stage + place(upper * 8 + row, 2 * slice + right));
            multiply_add(score, left, query[slice]);
        }
#pragma unroll
        for (u32 i = 0; i < 4; ++i)
            score[i] = i / 2 * 8 + lane / 4 < keys ? score[i] * scale : NOTHING;
        float shrink[2];
#pragma unroll
        for (u32 head = 0; head < 2; ++head) {
            const float now = fmaxf(best[head], most_of_rows(fmaxf(score[head], score[head + 2])));
            shrink[head] = power_of_2(best[head] - now);
            best[head] = now;
            score[head] = power_of_2(score[head] - now);
            score[head + 2] = power_of_2(score[head + 2] - now);
            total[head] = total[head] * shrink[head] + score[head] + score[head + 2];
        }
        const u32 weight[2] = {turned(pack(score[0], score[1])), turned(pack(score[2], score[3]))};
#pragma unroll
        for (u32 slice = 0; slice < SLICES; ++slice) {
            u32 left[4];
            read_turned(left, stage + PLANE_BYTES + place(right * 8 + row, 2 * slice + upper));
#pragma unroll
            for (u32 i = 0; i < 4; ++i) acc[slice][i] *= shrink[i % 2];
            multiply_add(acc[slice], left, weight);
        }
    }
};

// Shared memory in which the warps of a block leave their sums.
struct alignas(16) Joint {
    float acc[WARPS][GROUP][JOINED];
    float stats[WARPS][GROUP][2];
    u32 is_last;

    __device__ __forceinline__ void leave(const Sums& sums, u32 warp) {
        const u32 lane = threadIdx.x % 32, row = lane / 4;
#pragma unroll
        for (u32 i = 0; i < 2; ++i) {
            const u32 head = lane % 4 * 2 + i;
            float total = sums.total[i];
#pragma unroll
            for (u32 step = 4; step < 32; step *= 2) total += __shfl_xor_sync(ALL, total, step);
            if (head >= GROUP) continue;
#pragma unroll
            for (u32 slice = 0; slice < SLICES; ++slice) {
                acc[warp][head][slice * 16 + row] = sums.acc[slice][i];
                acc[warp][head][slice * 16 + 8 + row] = sums.acc[slice][i + 2];
            }
            if (row == 0) stats[warp][head][0] = sums.best[i], stats[warp][head][1] = total;
        }
    }
};

// Two values of a line, of some parts of its keys: their sums, and what they are to be divided by.
struct Pair {
    float best, total, a, b;

    __device__ __forceinline__ Pair() : best(NOTHING), total(0), a(0), b(0) {}

    __device__ __forceinline__ void take(float its_best, float its_total, float2 its) {
        const float now = fmaxf(best, its_best);
        const float shrink = power_of_2(best - now), grow = power_of_2(its_best - now);
        best = now, total = total * shrink + its_total * grow;
        a = a * shrink + its.x * grow, b = b * shrink + its.y * grow;
    }
};

__device__ __forceinline__ void write(const Inputs& in, const Item& item, u32 line, u32 value,
                                      const Pair& pair) {
    const u64 head = ((u64)item.row * KV_HEADS + item.head()) * GROUP + line;
    const float factor = 1.0f / pair.total;
    *(u32*)(in.out + head * HEAD + value) = pack(pair.a * factor, pair.b * factor);
}

// The last of a row's parts joins them all.
__device__ __forceinline__ void join_parts(const Inputs& in, const Item& item, Joint& joint) {
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        joint.is_last = atomicAdd(in.counters + item.pair, 1) == item.parts - 1;
        if (joint.is_last) in.counters[item.pair] = 0;
        __threadfence();
    }
    __syncthreads();
    if (!joint.is_last) return;
    for (u32 i = threadIdx.x; i < GROUP * HALF; i += THREADS) {
        const u32 line = i / HALF, value = i % HALF * 2;
        Pair pair;
        for (u32 part = 0; part < item.parts; ++part) {
            const u64 at = ((u64)item.pair * in.most_parts + part) * GROUP + line;
            const float2 stats = __ldcg((const float2*)(in.stats + at * 2));
            pair.take(stats.x, stats.y, __ldcg((const float2*)(in.parts + at * HEAD + value)));
        }
        write(in, item, line, value, pair);
    }
}

__device__ __forceinline__ void join_warps(const Inputs& in, const Item& item, Joint& joint) {
    for (u32 i = threadIdx.x; i < GROUP * HALF; i += THREADS) {
        const u32 line = i / HALF, value = i % HALF * 2;
        Pair pair;
#pragma unroll
        for (u32 warp = 0; warp < WARPS; ++warp)
            pair.take(joint.stats[warp][line][0], joint.stats[warp][line][1],
                      *(const float2*)&joint.acc[warp][line][value]);
        if (item.parts == 1) {
            write(in, item, line, value, pair);
            continue;
        }
        const u64 at = ((u64)item.pair * in.most_parts + item.part) * GROUP + line;
        *(float2*)(in.parts + at * HEAD + value) = make_float2(pair.a, pair.b);
        if (value == 0) *(float2*)(in.stats + at * 2) = make_float2(pair.best, pair.total);
    }
    if (item.parts > 1) join_parts(in, item, joint);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    decode_attention(const __grid_constant__ Inputs in) {
    // In whole lines: else a sector of memory is asked for twice.
    extern __shared__ __align__(128) char memory[];
    __shared__ Joint joint;
    __shared__ Weights weights;
    const u32 warp = threadIdx.x / 32;
    const u32 ring = address_of(memory) + warp * STAGES * STAGE_BYTES;
    release_next();
    Stream stream(in);
    Items items = stream.items;
    u32 early = 0;
    if (stream.advance(in, warp))
        for (; early < STAGES && stream.tile < stream.item.tiles(); ++early) {
            stream.ask_tile(in, ring + early * STAGE_BYTES);
            commit();
        }
    weights.load(in);
    __syncthreads();
    await_inputs();
    if (early) stream.ask_inputs(in, ring);
    commit();
    for (; early < STAGES; ++early) stream.ask(in, ring + early * STAGE_BYTES, warp);
    await_copies<0>();

    u32 stage = ring;
    for (Item item; items.next(in, item);) {
        const u32 tiles = item.tiles(), last = item.has_own() ? tiles - 1 : tiles;
        Heads heads;
        if (warp < tiles) {
            await_copies<STAGES - 1>();
            heads.load(in, weights, stage);
            if (last < tiles && last % WARPS == warp) {
                heads.load_own(in, weights, stage);
                heads.store_own(in, item);
            }
        }
        Sums sums;
        for (u32 tile = warp; tile < tiles; tile += WARPS) {
            const u32 keys = item.end - item.begin - tile * TILE;
            await_copies<STAGES - 1>();
            if (tile == last) heads.place_own(stage, keys - 1);
            sums.take(heads.query, stage, keys, in.scale * LOG2E);
            __syncwarp();
            stream.ask(in, stage, warp);
            stage = stage + STAGE_BYTES == ring + STAGES * STAGE_BYTES ? ring : stage + STAGE_BYTES;
        }
        __syncthreads();  // what was left before has been read
        joint.leave(sums, warp);
        __syncthreads();
        join_warps(in, item, joint);
    }
}
