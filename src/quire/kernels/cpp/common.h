// Vectors of floats as wide as this CPU's registers, and the number formats of tensors.
//
// All arithmetic is in float32. Vectors are the compilers' own extension, so that one text serves
// every instruction set. Rows of values that vectors pass over are padded with zeros.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

#ifdef __x86_64__
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

// Vectors are passed in registers only where calls disappear.
#define INLINE static inline __attribute__((always_inline))

typedef float Vec __attribute__((vector_size(W * sizeof(float))));
typedef int32_t Ints __attribute__((vector_size(W * sizeof(int32_t))));
typedef uint32_t Bits __attribute__((vector_size(W * sizeof(uint32_t))));

constexpr int64_t SMALL_WORK = 1 << 15;  // values for which waking other threads does not pay

INLINE int64_t padded(int64_t size) { return (size + W - 1) / W * W; }

INLINE Vec all(float value) { return value - Vec{}; }

template <typename To, typename From>
INLINE To same_bits(From value) {
    static_assert(sizeof(To) == sizeof(From), "of one size");
    To result;
    memcpy(&result, &value, sizeof result);
    return result;
}

INLINE Vec load(const float* from) {
    Vec vec;
    memcpy(&vec, from, sizeof vec);
    return vec;
}

INLINE void store(float* to, Vec vec) { memcpy(to, &vec, sizeof vec); }

INLINE Vec larger(Vec a, Vec b) { return a > b ? a : b; }

INLINE float sum_of(Vec vec) {
    float sum = 0;
    for (int i = 0; i < W; i++) sum += vec[i];
    return sum;
}

INLINE float max_of(Vec vec) {
    float most = vec[0];
    for (int i = 1; i < W; i++) most = vec[i] > most ? vec[i] : most;
    return most;
}

// e to the power of x, by Taylor's series around the nearest power of 2; within 2 units of the last
// place for |x| <= 87, and 0 or infinity beyond. NaN stays NaN, whatever its exponent is cast to.
INLINE Vec exp_of(Vec x) {
    const Vec limit = all(87.0f), rounder = all(12582912.0f);  // 1.5 * 2^23
    const Ints is_zero = x < -limit, is_infinite = x > limit;
    x = is_zero ? -limit : is_infinite ? limit : x;
    const Vec power = (x * 1.44269504f + rounder) - rounder;
    const Vec rest = (x - power * 0.693359375f) - power * -2.12194440e-4f;  // ln 2 in two parts
    Vec sum = all(1.0f / 5040);
    const float terms[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
    for (float term : terms) sum = sum * rest + term;
    Ints exponent;
    for (int i = 0; i < W; i++) exponent[i] = static_cast<int32_t>(power[i]);
    const Vec value = sum * same_bits<Vec>((exponent + 127) << 23);
    return is_zero ? Vec{} : is_infinite ? all(INFINITY) : value;
}

INLINE Vec sigmoid_of(Vec x) { return 1.0f / (1.0f + exp_of(-x)); }

INLINE Vec tanh_of(Vec x) { return 1.0f - 2.0f / (1.0f + exp_of(x + x)); }

struct BFloat16 {
    uint16_t bits;
};

INLINE float to_float(float value) { return value; }

INLINE float to_float(BFloat16 value) {
    return same_bits<float>(static_cast<uint32_t>(value.bits) << 16);
}

INLINE void from_float(float* to, float value) { *to = value; }

INLINE void from_float(BFloat16* to, float value) {
    uint32_t bits = same_bits<uint32_t>(value);
    const bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
    bits += 0x7fff + ((bits >> 16) & 1);  // to the nearest, ties to even
    to->bits = is_nan ? 0x7fc0 : static_cast<uint16_t>(bits >> 16);
}

#if defined(__aarch64__) || defined(__FLT16_MANT_DIG__)
#ifdef __aarch64__  // where C++ has _Float16 only from GCC 13 on
typedef __fp16 Float16;
#else
typedef _Float16 Float16;
#endif
INLINE float to_float(Float16 value) { return static_cast<float>(value); }
INLINE void from_float(Float16* to, float value) { *to = static_cast<Float16>(value); }
#elif defined(__F16C__)  // x86 compilers before GCC 12
struct Float16 {
    uint16_t bits;
};
INLINE float to_float(Float16 value) { return _cvtsh_ss(value.bits); }
INLINE void from_float(Float16* to, float value) { to->bits = _cvtss_sh(value, 0); }
#else
#error "no half-precision floats"
#endif

template <typename T>
INLINE Vec load(const T* from) {
    Vec vec;
    for (int i = 0; i < W; i++) vec[i] = to_float(from[i]);
    return vec;
}

template <typename T>
INLINE void store(T* to, Vec vec) {
    for (int i = 0; i < W; i++) from_float(&to[i], vec[i]);
}

#ifdef __AVX512F__  // GCC 12 makes much more of the loops above
INLINE Vec load(const BFloat16* from) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

INLINE void store(BFloat16* to, Vec vec) {
    Bits bits = same_bits<Bits>(vec);
    bits += 0x7fff + ((bits >> 16) & 1);
    bits = vec != vec ? Bits{} + 0x7fc00000 : bits;
    const __m256i halves = _mm512_cvtepi32_epi16(same_bits<__m512i>(bits >> 16));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), halves);
}

INLINE Vec load(const Float16* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

INLINE void store(Float16* to, Vec vec) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph(vec, 0));
}
#endif

// The first `count` of a vector's values, and zeros behind them.
template <typename T>
INLINE Vec load_some(const T* from, int64_t count) {
    if (count >= W) return load(from);
    Vec vec = {};
    for (int i = 0; i < count; i++) vec[i] = to_float(from[i]);
    return vec;
}

// `size` values as floats, and zeros behind them up to a whole vector.
template <typename T>
INLINE void read_row(float* to, const T* from, int64_t size) {
    for (int64_t i = 0; i < size; i += W) store(to + i, load_some(from + i, size - i));
}

template <typename T>
INLINE void write_row(T* to, const float* from, int64_t size) {
    int64_t i = 0;
    for (; i + W <= size; i += W) store(to + i, load(from + i));
    for (; i < size; i++) from_float(&to[i], from[i]);
}

// 1 / sqrt(mean of squares + eps) of a row that is padded with zeros.
INLINE float rms_scale(const float* row, int64_t size, float eps) {
    Vec squares = {};
    for (int64_t i = 0; i < size; i += W) squares += load(row + i) * load(row + i);
    return 1.0f / std::sqrt(sum_of(squares) / size + eps);
}

// The places of a KV cache [planes, blocks, block_size, heads, D]; strides count values.
struct Cache {
    int64_t plane_stride, block_stride, token_stride, head_stride, block_size;

    int64_t place(int64_t block, int64_t token, int64_t head) const {
        return block * block_stride + token * token_stride + head * head_stride;
    }
};
