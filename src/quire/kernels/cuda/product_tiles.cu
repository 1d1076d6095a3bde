// Tiles of x [lines, k] times weight [columns, k] transposed, of bf16 or fp16 with float32 sums, on
// Hopper. What becomes of a tile's sums is said by the kernel that includes this.
//
// A block computes 64 * GROUPS lines by COLUMNS columns. One thread asks the copy engine for tiles
// of STEP values of K, up to STAGES ahead; each of GROUPS warpgroups multiplies 64 lines with all
// columns. A cluster of blocks is TALL blocks of neighbouring lines, which read the weight's tile
// once for both, times PARTS blocks that share out K. Weights are loaded while the kernel before
// still runs (see kernels/triton/launch.py).
//
// The copy engine, `wgmma` and barriers are those of PTX ISA 8.0, chapters "Asynchronous Warpgroup
// Level Matrix Multiply-Accumulate", "cp.async.bulk.tensor" and "mbarrier".
//
// Set when it is compiled: STEP, GROUPS, COLUMNS, TALL (1 or 2), PARTS, STAGES, HAS_COMPANY (a block
// of the next kernel begins beside this one, and has registers of the multiprocessor too), GATED
// (the weight is [2 columns, k], gate and up; a tile has as many columns of each), and
// multiply_add(), whose operands depend on COLUMNS.

struct alignas(64) TensorMap {
    char opaque[128];
};

constexpr u32 BAND = 8;  // tiles of lines
constexpr u32 LINES = 64 * GROUPS;
constexpr u32 X_BYTES = LINES * STEP * 2;
constexpr u32 HALF_BYTES = COLUMNS / 2 * STEP * 2;  // of the weight's tile
constexpr u32 STAGE_BYTES = X_BYTES + 2 * HALF_BYTES;
constexpr u32 CLUSTER = TALL * PARTS;
constexpr u32 WRITTEN = GATED ? COLUMNS / 2 : COLUMNS;     // columns of out

static_assert(STEP == 64, "a row of a tile is 128 bytes, the width of the swizzle");
static_assert(COLUMNS % 16 == 0 && COLUMNS <= 256 && TALL <= 2);
static_assert(GROUPS <= 3, "registers of a block, as they are shared out");

__device__ __forceinline__ u32 rank_in_cluster() {
    u32 rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

__device__ __forceinline__ u32 at_rank(u32 address, u32 rank) {
    u32 there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    return there;
}

// Wait for all blocks of the cluster; what they wrote to shared memory before is visible after.
__device__ __forceinline__ void meet_cluster() {
    asm volatile(
        "barrier.cluster.arrive.release.aligned;\n"
        "barrier.cluster.wait.acquire.aligned;" ::
            : "memory");
}

// `meet_cluster` without a fence: nothing was written, or a fence has made it visible already.
__device__ __forceinline__ void wait_for_cluster() {
    asm volatile(
        "barrier.cluster.arrive.relaxed.aligned;\n"
        "barrier.cluster.wait.acquire.aligned;" ::
            : "memory");
}

__device__ __forceinline__ void await_phase(u32 barrier, u32 parity) {
    asm volatile(
        "{\n.reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 done, [%0], %1;\n"
        "@done bra.uni finished;\n"
        "bra.uni again;\n"
        "finished:\n}" ::"r"(barrier),
        "r"(parity)
        : "memory");
}

__device__ __forceinline__ void begin_barrier(u32 barrier, u32 arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals)
                 : "memory");
}

// Arrive at a barrier of any block of the cluster. No write has to become visible by it.
__device__ __forceinline__ void arrive(u32 barrier) {
    if (TALL > 1)
        asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
    else asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

__device__ __forceinline__ void expect_bytes(u32 barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

// Load a box of a matrix; by multicast, to the same place in all these blocks of the cluster.
__device__ __forceinline__ void load(u32 to, const TensorMap* map, u32 k, u32 row, u32 barrier,
                                     bool multicast, unsigned short ranks) {
    if (multicast) {
        asm volatile(
            "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
            ".multicast::cluster [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(to),
            "l"(map), "r"(barrier), "r"(k), "r"(row), "h"(ranks)
            : "memory");
    } else {
        asm volatile(
            "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
            "[%0], [%1, {%3, %4}], [%2];" ::"r"(to),
            "l"(map), "r"(barrier), "r"(k), "r"(row)
            : "memory");
    }
}

__device__ __forceinline__ void prefetch(const TensorMap* map) {
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

// A tile of rows of 128 bytes, swizzled; groups of 8 rows follow each other.
__device__ __forceinline__ u64 describe(u32 address) {
    return (u64)((address & 0x3FFFF) >> 4) | (1ull << 16) | (64ull << 32) | (1ull << 62);
}

struct Place {
    u32 line, strip;
};

// Facts that all threads of a block share.
struct Block {
    u32 stages;       // shared memory: for each stage lines of x, then rows of the weight
    u32 full, empty;  // barriers of the stages: the tile has come; all who share it have used it
    u32 row, part;    // in the cluster
    u32 lines, columns, tiles_of_lines, strips, first_step, steps;

    // Tiles of the same columns follow each other, as far as their x stays in the cache: weights
    // come from memory once, or once in BAND tiles of lines.
    __device__ __forceinline__ Place place(u32 tile) const {
        const u32 band = tile / (BAND * strips) * BAND, in_band = tile % (BAND * strips);
        const u32 height = tiles_of_lines - band < BAND ? tiles_of_lines - band : BAND;
        return {((band + in_band % height) * TALL + row) * LINES, in_band / height};
    }

    __device__ __forceinline__ u32 tiles() const { return tiles_of_lines * strips; }

    // Lines beyond the last are not read: what they multiply is not written.
    __device__ __forceinline__ u32 lines_from(u32 line) const {
        return line >= lines ? 0 : lines - line < LINES ? lines - line : LINES;
    }
};

// The stages in turn, and whether all have been used an odd number of times.
struct Turn {
    u32 stage = 0, parity = 0;

    __device__ __forceinline__ void next() {
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
};

__device__ __forceinline__ void ask_for_weight(const Block& block, const TensorMap* map, u32 stage,
                                               Place place, u32 step) {
    const u32 barrier = block.full + 8 * stage;
    const u32 to = block.stages + stage * STAGE_BYTES + X_BYTES;
    const unsigned short both = ((1 << TALL) - 1) << (block.part * TALL);
    expect_bytes(barrier, 2 * HALF_BYTES + block.lines_from(place.line) * STEP * 2);
#pragma unroll
    for (u32 half = 0; half < 2; ++half) {
        if (TALL == 2 && half != block.row) continue;  // the other block reads that one
        const u32 from = GATED ? half * block.columns + place.strip * (COLUMNS / 2)
                               : place.strip * COLUMNS + half * (COLUMNS / 2);
        load(to + half * HALF_BYTES, map, (block.first_step + step) * STEP, from, barrier, TALL > 1,
             both);
    }
}

__device__ __forceinline__ void ask_for_x(const Block& block, const TensorMap* map,
                                          const TensorMap* last_map, u32 stage, Place place,
                                          u32 step) {
    const u32 count = block.lines_from(place.line);
    if (count)
        load(block.stages + stage * STAGE_BYTES, count == LINES ? map : last_map,
             (block.first_step + step) * STEP, place.line, block.full + 8 * stage, false, 0);
}

// Run by one thread: start the load of every tile as soon as its stage is free.
__device__ __forceinline__ void ask(const Block& block, const TensorMap* x_map,
                                    const TensorMap* last_x_map, const TensorMap* weight_map,
                                    u32 tile, u32 clusters) {
    prefetch(x_map), prefetch(last_x_map);
    Place place = block.place(tile);
    const u32 early = block.steps < STAGES ? block.steps : STAGES;
    for (u32 step = 0; step < early; ++step) ask_for_weight(block, weight_map, step, place, step);
    await_inputs();
    Turn turn = {0, 1};  // nobody has used the stages yet
    for (u32 step = 0; step < early; ++step, turn.next())
        ask_for_x(block, x_map, last_x_map, step, place, step);
    for (u32 begun = early; tile < block.tiles(); tile += clusters, begun = 0) {
        place = block.place(tile);
        for (u32 step = begun; step < block.steps; ++step, turn.next()) {
            await_phase(block.empty + 8 * turn.stage, turn.parity);
            ask_for_weight(block, weight_map, turn.stage, place, step);
            ask_for_x(block, x_map, last_x_map, turn.stage, place, step);
        }
    }
    // Stay until all blocks have told that they used what was loaded.
    for (u32 i = 0; i < STAGES; ++i, turn.next())
        await_phase(block.empty + 8 * turn.stage, turn.parity);
}

// A warpgroup has used a stage: tell all blocks that fill it.
__device__ __forceinline__ void release(const Block& block, u32 stage) {
    const u32 row = threadIdx.x % 128;
    if (row >= TALL) return;
    u32 barrier = block.empty + 8 * stage;
    if (TALL > 1) barrier = at_rank(barrier, block.part * TALL + row);
    arrive(barrier);
}

// A warpgroup's sums of one tile; without lines, it only passes through the stages.
__device__ __forceinline__ void multiply(const Block& block, Turn& turn, float (&sum)[COLUMNS / 2],
                                         u32 group, bool is_needed) {
    for (u32 step = 0; step < block.steps && !is_needed; ++step, turn.next()) {
        await_phase(block.full + 8 * turn.stage, turn.parity);
        // No warp stays behind the one that releases.
        asm volatile("bar.sync %0, 128;" ::"r"(2 + group) : "memory");
        release(block, turn.stage);
    }
    u32 last = 0;
    for (u32 step = 0; step < block.steps && is_needed; ++step, turn.next()) {
        await_phase(block.full + 8 * turn.stage, turn.parity);
        const u32 at = block.stages + turn.stage * STAGE_BYTES;
        const u64 left = describe(at + group * 64 * STEP * 2), right = describe(at + X_BYTES);
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
        for (u32 slice = 0; slice < 4; ++slice)  // 16 values: 32 bytes, in units of 16
            multiply_add(sum, left + 2 * slice, right + 2 * slice, step > 0 || slice > 0);
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
        if (step > 0) {
            asm volatile("wgmma.wait_group.sync.aligned 1;" ::: "memory");
            release(block, last);
        }
        last = turn.stage;
    }
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
    for (u32 i = 0; i < COLUMNS / 2; ++i) asm volatile("" : "+f"(sum[i])::"memory");
    if (is_needed) release(block, last);
}

// Run by all threads of a block: multiply its tiles, and give the sums of each to
// finish(block, sum, place, line, is_needed), which the multiplying threads call. `line` is that of a
// thread's first sums; `is_needed` is false where its warpgroup has no lines.
template <class Finish>
__device__ __forceinline__ void compute(const TensorMap* x_map, const TensorMap* last_x_map,
                                        const TensorMap* weight_map, u32 lines, u32 columns, u32 k,
                                        Finish finish) {
    extern __shared__ char memory[];
    __shared__ alignas(8) u64 full[STAGES], empty[STAGES];
    const u32 rank = CLUSTER == 1 ? 0 : rank_in_cluster(), part = rank / TALL;
    const u32 steps = (k + STEP - 1) / STEP, first_step = part * steps / PARTS;
    const Block block = {(address_of(memory) + 1023) & ~1023u,
                         address_of(full),
                         address_of(empty),
                         rank % TALL,
                         part,
                         lines,
                         columns,
                         (lines + LINES * TALL - 1) / (LINES * TALL),
                         (columns + WRITTEN - 1) / WRITTEN,
                         first_step,
                         (part + 1) * steps / PARTS - first_step};
    if (threadIdx.x == 0) {
        for (u32 stage = 0; stage < STAGES; ++stage) {
            begin_barrier(block.full + 8 * stage, 1);
            begin_barrier(block.empty + 8 * stage, TALL * GROUPS);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    if (CLUSTER > 1) wait_for_cluster();
    __syncthreads();
    release_next();

    const u32 first = blockIdx.x / CLUSTER, clusters = gridDim.x / CLUSTER;
    if (threadIdx.x < 128) {
        if (GROUPS > 1 && !HAS_COMPANY) asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (threadIdx.x == 0) ask(block, x_map, last_x_map, weight_map, first, clusters);
        __syncwarp();
        if (PARTS > 1) meet_cluster();  // as those that finish a part of K do
    } else {
        if (GROUPS == 2 && !HAS_COMPANY) asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        if (GROUPS == 3 && !HAS_COMPANY) asm volatile("setmaxnreg.inc.sync.aligned.u32 152;");
        await_inputs();
        const u32 group = threadIdx.x / 128 - 1;
        const u32 line_in_tile = group * 64 + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4;
        float sum[COLUMNS / 2];
        Turn turn;
        for (u32 tile = first; tile < block.tiles(); tile += clusters) {  // one, where PARTS > 1
            const Place place = block.place(tile);
            const bool is_needed = place.line + group * 64 < lines;
            multiply(block, turn, sum, group, is_needed);
            finish(block, sum, place, place.line + line_in_tile, is_needed);
        }
    }
    if (CLUSTER > 1)
        wait_for_cluster();  // no block ends while another may write to it or read from it
}
