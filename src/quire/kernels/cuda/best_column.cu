// best[m] = the first n with the largest sum over k of x[m, k] * weight[n, k], rounded to 16 bits, by
// `product_tiles.cu`: what argmax finds in the product, which is never written.
//
// A line's best so far is one word of `keys`, larger for a larger value and, of equal ones, for a
// smaller column; blocks raise it. The last block to end writes the columns, and leaves zeros in
// `keys` and `ended` for the next launch.

static_assert(PARTS == 1 && !GATED);

struct Best {
    float value;
    u32 column;

    // Not a NaN: it is larger than nothing.
    __device__ __forceinline__ void see(float other, u32 at) {
        if (other > value) value = other, column = at;
    }
};

constexpr u32 NONE = ~0u;  // a column, where all values are NaN or -infinity

__device__ __forceinline__ u64 key_of(Best best) {
    const u32 bits = __float_as_uint(best.value + 0.0f);  // of -0, 0
    const u32 ordered = bits ^ (bits >> 31 ? ~0u : 1u << 31);
    return (u64)ordered << 32 | ~best.column;
}

// The largest key of four lanes.
__device__ __forceinline__ u64 largest_of_four(u64 key) {
#pragma unroll
    for (u32 other = 1; other < 4; other *= 2) {
        const u64 its = __shfl_xor_sync(~0u, key, other);
        key = its > key ? its : key;
    }
    return key;
}

__device__ __forceinline__ void raise(u64* keys, const float (&sum)[COLUMNS / 2], u32 first,
                                      u32 line, u32 lines, u32 columns) {
    const u32 lane = threadIdx.x & 3;
    Best upper = {__uint_as_float(0xFF800000u), NONE}, lower = upper;
#pragma unroll
    for (u32 octet = 0; octet < COLUMNS / 8; ++octet) {
        if (first + 8 * octet >= columns) break;  // there are none beyond the last eight
        const u32 column = first + 8 * octet + 2 * lane;
        const u32 above = pack(sum[4 * octet], sum[4 * octet + 1]);
        const u32 below = pack(sum[4 * octet + 2], sum[4 * octet + 3]);
        upper.see(low_of(above), column), upper.see(high_of(above), column + 1);
        lower.see(low_of(below), column), lower.see(high_of(below), column + 1);
    }
    const u64 best = largest_of_four(key_of(upper)), next = largest_of_four(key_of(lower));
    if (lane == 0 && line < lines) atomicMax(keys + line, best);
    if (lane == 0 && line + 8 < lines) atomicMax(keys + line + 8, next);
}

extern "C" __global__ void __launch_bounds__(128 * (GROUPS + 1), 1)
    best_column(const __grid_constant__ TensorMap x_map,
                const __grid_constant__ TensorMap last_x_map,
                const __grid_constant__ TensorMap weight_map, long long* best, u64* keys,
                u32* ended, u32 lines, u32 columns, u32 k) {
    compute(&x_map, &last_x_map, &weight_map, lines, columns, k,
            [&](const Block&, const float(&sum)[COLUMNS / 2], Place place, u32 line,
                bool is_needed) {
                if (is_needed) raise(keys, sum, place.strip * COLUMNS, line, lines, columns);
            });
    __shared__ bool is_last;
    __threadfence();  // the keys are raised before the block has ended
    __syncthreads();
    if (threadIdx.x == 0) is_last = atomicAdd(ended, 1) == gridDim.x - 1;
    __syncthreads();
    if (!is_last) return;
    __threadfence();
    for (u32 line = threadIdx.x; line < lines; line += blockDim.x) {
        const u32 column = ~(u32)__ldcg(keys + line);
        best[line] = column == NONE ? 0 : column;
        keys[line] = 0;
    }
    if (threadIdx.x == 0) *ended = 0;
}
