// out[m, n] = sum over k of x[m, k] * weight[n, k] of 16-bit values, by `product_tiles.cu`.
//
// Blocks of a cluster with different parts of K add up their sums through each other's memory.
//
// Set when it is compiled, besides what the tiles need: ACTIVATION (its place in activation.NAMES);
// where GATED, out = activation(gate) * up.

constexpr u32 OCTETS = (WRITTEN / 8 + PARTS - 1) / PARTS;  // of columns, that a block finishes

static_assert(ACTIVATION <= 5);
static_assert(LINES * COLUMNS * 4 <= STAGES * STAGE_BYTES, "sums are left where stages were");

// Four lanes with four words each: lane i's word j becomes lane j's word i.
__device__ __forceinline__ void transpose(u32 (&word)[4], u32 lane) {
#pragma unroll
    for (u32 i = 0; i < 4; i += 2) {
        u32 given = lane & 1 ? word[i] : word[i + 1];
        u32 got = __shfl_xor_sync(~0u, given, 1);
        if (lane & 1) word[i] = got;
        else word[i + 1] = got;
    }
#pragma unroll
    for (u32 i = 0; i < 2; ++i) {
        u32 given = lane & 2 ? word[i] : word[i + 2];
        u32 got = __shfl_xor_sync(~0u, given, 2);
        if (lane & 2) word[i] = got;
        else word[i + 2] = got;
    }
}

__device__ __forceinline__ float activate(float x) {
    if (ACTIVATION == 0) return __fdividef(x, 1.0f + __expf(-x));
    if (ACTIVATION == 1) return 0.5f * x * (1.0f + erff(x * 0.7071067811865476f));
    if (ACTIVATION == 2)
        return __fdividef(x, 1.0f + __expf(-1.5957691216057308f * (x + 0.044715f * x * x * x)));
    if (ACTIVATION == 3) return __fdividef(x, 1.0f + __expf(-1.702f * x));
    const float positive = x < 0.0f ? 0.0f : x;  // of NaN, NaN
    return ACTIVATION == 4 ? positive : positive * positive;
}

// What the four values of a thread in one block of 8 columns are: two of a line, two of the 8th
// line after it.
struct Four {
    float a, b, c, d;
};

__device__ __forceinline__ Four activated(Four value, Four up) {
    return {activate(value.a) * up.a, activate(value.b) * up.b, activate(value.c) * up.c,
            activate(value.d) * up.d};
}

__device__ __forceinline__ Four add_bias(Four value, const unsigned short* bias) {
    if (!bias) return value;
    u32 both = *(const u32*)bias;
    return {value.a + low_of(both), value.b + high_of(both), value.c + low_of(both),
            value.d + high_of(both)};
}

// Where a block writes: `count` times 8 columns from `column` on, of a thread's `line` and the 8th
// after it. `before`, if any, is added to; `bias` too.
struct Written {
    unsigned short* out;
    const unsigned short* before;
    const unsigned short* bias;
    u32 line, column, count, lines, columns;
};

// `values` tells a thread's Four of any of the blocks of 8 columns, with the bias at that place.
template <class Values>
__device__ __forceinline__ void finish(Values values, const Written& to) {
    const u32 lane = threadIdx.x & 3;
#pragma unroll
    for (u32 first = 0; first < OCTETS; first += 4) {
        const u32 from = to.column + 8 * (first + lane);
        const u64 place = (u64)to.line * to.columns + from, below = place + 8 * (u64)to.columns;
        const bool inside = first + lane < to.count && from < to.columns;
        const bool writes[2] = {inside && to.line < to.lines, inside && to.line + 8 < to.lines};
        u32 word[2][4] = {};
        if (to.before) {
#pragma unroll
            for (u32 lower = 0; lower < 2; ++lower) {
                if (writes[lower]) {
                    const uint4 old = *(const uint4*)(to.before + (lower ? below : place));
                    word[lower][0] = old.x, word[lower][1] = old.y;
                    word[lower][2] = old.z, word[lower][3] = old.w;
                }
                transpose(word[lower], lane);
            }
        }
#pragma unroll
        for (u32 i = 0; i < 4; ++i) {
            Four value = {0, 0, 0, 0};
            if (first + i < OCTETS && first + i < to.count) {
                const u32 column = to.column + 8 * (first + i) + 2 * lane;
                value =
                    values(first + i, to.bias && column < to.columns ? to.bias + column : nullptr);
            }
            if (to.before) {
                value.a += low_of(word[0][i]), value.b += high_of(word[0][i]);
                value.c += low_of(word[1][i]), value.d += high_of(word[1][i]);
            }
            word[0][i] = pack(value.a, value.b);
            word[1][i] = pack(value.c, value.d);
        }
#pragma unroll
        for (u32 lower = 0; lower < 2; ++lower) {
            transpose(word[lower], lane);
            if (writes[lower])
                *(uint4*)(to.out + (lower ? below : place)) =
                    make_uint4(word[lower][0], word[lower][1], word[lower][2], word[lower][3]);
        }
    }
}

__device__ __forceinline__ Four four_of(const float* at) { return {at[0], at[1], at[2], at[3]}; }

// activation(gate) * up of four values; `bias`, if any, is gate's, up's `columns` behind it.
__device__ __forceinline__ Four gated(Four value, Four up, const unsigned short* bias,
                                      u32 columns) {
    return activated(add_bias(value, bias), add_bias(up, bias ? bias + columns : nullptr));
}

// Finish a tile of which one block has all of K.
__device__ __forceinline__ void write_alone(const float (&sum)[COLUMNS / 2], const Written& to) {
    finish(
        [&](u32 octet, const unsigned short* bias) {
            const Four value = four_of(sum + 4 * octet);
            if (!GATED) return add_bias(value, bias);
            return gated(value, four_of(sum + COLUMNS / 4 + 4 * octet), bias, to.columns);
        },
        to);
}

// Leave the sums where the blocks with other parts of K find them, then finish a part of the
// columns. Parts of K are added up in their order, whoever does it.
__device__ __forceinline__ void write_together(const Block& block, const float (&sum)[COLUMNS / 2],
                                               Written to) {
    const u32 mine = block.stages + (threadIdx.x - 128) * 16;
    asm volatile("bar.sync 1, %0;" ::"n"(128 * GROUPS) : "memory");  // no warp multiplies any more
#pragma unroll
    for (u32 octet = 0; octet < COLUMNS / 8; ++octet) {
        const Four value = four_of(sum + 4 * octet);
        asm volatile("st.shared.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(mine + octet * GROUPS * 2048),
                     "f"(value.a), "f"(value.b), "f"(value.c), "f"(value.d)
                     : "memory");
    }
    meet_cluster();
    auto total = [&](u32 octet) {
        Four value = {0, 0, 0, 0};
#pragma unroll
        for (u32 part = 0; part < PARTS; ++part) {
            const u32 from = at_rank(mine + octet * GROUPS * 2048, part * TALL + block.row);
            Four add;
            asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
                         : "=f"(add.a), "=f"(add.b), "=f"(add.c), "=f"(add.d)
                         : "r"(from)
                         : "memory");
            value = {value.a + add.a, value.b + add.b, value.c + add.c, value.d + add.d};
        }
        return value;
    };
    const u32 first = block.part * OCTETS, all = WRITTEN / 8;
    to.column += 8 * first;
    to.count = first + OCTETS <= all ? OCTETS : first < all ? all - first : 0;
    finish(
        [&](u32 octet, const unsigned short* bias) {
            const Four value = total(first + octet);
            if (!GATED) return add_bias(value, bias);
            return gated(value, total(first + octet + all), bias, to.columns);
        },
        to);
}

extern "C" __global__ void __launch_bounds__(128 * (GROUPS + 1), 1)
    product(const __grid_constant__ TensorMap x_map, const __grid_constant__ TensorMap last_x_map,
            const __grid_constant__ TensorMap weight_map, unsigned short* out,
            const unsigned short* before, const unsigned short* bias, u32 lines, u32 columns,
            u32 k) {
    compute(&x_map, &last_x_map, &weight_map, lines, columns, k,
            [&](const Block& block, const float(&sum)[COLUMNS / 2], Place place, u32 line,
                bool is_needed) {
                const Written to = {out,    before, bias,   line, place.strip * WRITTEN,
                                    OCTETS, lines,  columns};
                if (PARTS > 1) write_together(block, sum, to);
                else if (is_needed) write_alone(sum, to);
            });
}
