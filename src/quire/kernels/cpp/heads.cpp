// What q, k and v need between their product and attention: norms of heads, rotary positions, and
// the write of k and v to the KV cache.

struct HeadsArgs {
    const void* qkv;  // [T, (H + 2 K) D]
    void* q;          // [T, H, D]
    void* cache;      // [2, N, block_size, K, D]
    const float* cos;
    const float* sin;  // [T, rotary_dim / 2]
    const int64_t* slots;
    const void* q_weight;  // [D] of the RMS norms of heads; null: there are none
    const void* k_weight;
    Cache places;
    int64_t num_tokens, num_heads, num_kv_heads, head_dim, rotary_dim;
    int64_t is_interleaved;  // pairs are (2i, 2i + 1), else (i, i + rotary_dim / 2)
    int64_t num_threads;
    float q_eps, k_eps;
};

template <typename T>
static void norm_head(float* head, const T* weight, int64_t size, float eps) {
    const float scale = rms_scale(head, size, eps);
    for (int64_t i = 0; i < size; i++) head[i] = head[i] * scale * to_float(weight[i]);
}

static void rotate(
    float* head, const float* cos, const float* sin, int64_t half, int64_t step, int64_t apart
) {
    for (int64_t i = 0; i < half; i++) {
        float &first = head[i * step], &second = head[i * step + apart];
        const float turned = first * cos[i] - second * sin[i];
        second = second * cos[i] + first * sin[i];
        first = turned;
    }
}

template <typename T>
static void store_token(const HeadsArgs& args, int64_t token, float* head) {
    const int64_t size = args.head_dim, half = args.rotary_dim / 2;
    const int64_t line = (args.num_heads + 2 * args.num_kv_heads) * size;
    const T* from = static_cast<const T*>(args.qkv) + token * line;
    T* q = static_cast<T*>(args.q) + token * args.num_heads * size;
    T* cache = static_cast<T*>(args.cache);
    const int64_t block = args.slots[token] / args.places.block_size;
    const int64_t offset = args.slots[token] % args.places.block_size;
    const T* q_weight = static_cast<const T*>(args.q_weight);
    const T* k_weight = static_cast<const T*>(args.k_weight);
    for (int64_t i = 0; i < args.num_heads + args.num_kv_heads; i++) {
        const bool is_query = i < args.num_heads;
        read_row(head, from + i * size, size);
        if (q_weight)
            norm_head(head, is_query ? q_weight : k_weight, size,
                      is_query ? args.q_eps : args.k_eps);
        const float *cos = args.cos + token * half, *sin = args.sin + token * half;
        if (args.is_interleaved)
            rotate(head, cos, sin, half, 2, 1);
        else
            rotate(head, cos, sin, half, 1, half);
        T* to = is_query ? q + i * size
                         : cache + args.places.place(block, offset, i - args.num_heads);
        write_row(to, head, size);
    }
    for (int64_t i = 0; i < args.num_kv_heads; i++)
        memcpy(cache + args.places.plane_stride + args.places.place(block, offset, i),
               from + (args.num_heads + args.num_kv_heads + i) * size, size * sizeof(T));
}

template <typename T>
static void store_heads(const HeadsArgs& args) {
    const int64_t work = args.num_tokens * (args.num_heads + args.num_kv_heads) * args.head_dim;
#pragma omp parallel num_threads(args.num_threads) if (work > SMALL_WORK)
    {
        std::vector<float> head(padded(args.head_dim));
#pragma omp for
        for (int64_t token = 0; token < args.num_tokens; token++)
            store_token<T>(args, token, head.data());
    }
}

extern "C" {
void store_heads_float32(const HeadsArgs* args) { store_heads<float>(*args); }
void store_heads_bfloat16(const HeadsArgs* args) { store_heads<BFloat16>(*args); }
void store_heads_float16(const HeadsArgs* args) { store_heads<Float16>(*args); }
}
