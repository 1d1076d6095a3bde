// What the CUDA kernels share; it is put before each of their sources. IS_FP16 (1: fp16, 0: bf16)
// is set when they are compiled.

typedef unsigned int u32;
typedef unsigned long long u64;

__device__ __forceinline__ u32 address_of(const void* pointer) {
    return (u32)__cvta_generic_to_shared(pointer);
}

// Let the kernel after this one begin.
__device__ __forceinline__ void release_next() {
    asm volatile("griddepcontrol.launch_dependents;");
}

// Wait until the kernel before has ended and what it wrote is visible.
__device__ __forceinline__ void await_inputs() {
    asm volatile("griddepcontrol.wait;" ::: "memory");
}

// Two values of 16 bits in a word.
__device__ __forceinline__ u32 pack(float low, float high) {
    u32 both;
    if (IS_FP16) asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    else asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

__device__ __forceinline__ float low_of(u32 both) {
    if (!IS_FP16) return __uint_as_float(both << 16);
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"((unsigned short)both));
    return value;
}

__device__ __forceinline__ float high_of(u32 both) {
    return IS_FP16 ? low_of(both >> 16) : __uint_as_float(both & 0xFFFF0000u);
}
