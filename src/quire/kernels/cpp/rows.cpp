// Operations on each row of a matrix: RMS norms, gates of activations, the place of the largest
// value.

struct NormArgs {
    const void* x;  // [T, size]
    void* out;
    const void* weight;  // [size], of the type of x or float
    int64_t num_rows, size, is_weight_float;
    int64_t num_threads;
    float eps;
};

struct GateArgs {
    const void* gate_up;  // [T, 2 size]
    void* out;            // [T, size]
    int64_t num_rows, size;
    int64_t kind;  // as in ACTIVATIONS of rows.py
    int64_t num_threads;
};

struct ArgmaxArgs {
    const float* x;  // [T, size]
    int64_t* out;    // [T]
    int64_t num_rows, size, num_threads;
};

template <typename T>
static void rms_norm(const NormArgs& args) {
    const bool is_float = args.is_weight_float;
#pragma omp parallel num_threads(args.num_threads) if (args.num_rows * args.size > SMALL_WORK)
    {
        std::vector<float> row(padded(args.size)), weight(padded(args.size));
        if (is_float)
            read_row(weight.data(), static_cast<const float*>(args.weight), args.size);
        else
            read_row(weight.data(), static_cast<const T*>(args.weight), args.size);
#pragma omp for
        for (int64_t i = 0; i < args.num_rows; i++) {
            read_row(row.data(), static_cast<const T*>(args.x) + i * args.size, args.size);
            const float scale = rms_scale(row.data(), args.size, args.eps);
            for (int64_t j = 0; j < args.size; j += W)
                store(&row[j], load(&row[j]) * scale * load(&weight[j]));
            write_row(static_cast<T*>(args.out) + i * args.size, row.data(), args.size);
        }
    }
}

INLINE Vec silu(Vec x) { return x * sigmoid_of(x); }

INLINE Vec gelu_quick(Vec x) { return x * sigmoid_of(x * 1.702f); }

// Hendrycks and Gimpel 2016 (arXiv:1606.08415)
INLINE Vec gelu_tanh(Vec x) {
    return 0.5f * x * (1.0f + tanh_of(0.7978845608f * (x + 0.044715f * x * x * x)));
}

template <typename T, Vec activation(Vec)>
static void gate(const GateArgs& args) {
    const int64_t size = args.size;
#pragma omp parallel num_threads(args.num_threads) if (args.num_rows * size > SMALL_WORK)
    {
        std::vector<float> gates(padded(size)), ups(padded(size));
#pragma omp for
        for (int64_t i = 0; i < args.num_rows; i++) {
            const T* from = static_cast<const T*>(args.gate_up) + i * 2 * size;
            read_row(gates.data(), from, size);
            read_row(ups.data(), from + size, size);
            for (int64_t j = 0; j < size; j += W)
                store(&gates[j], activation(load(&gates[j])) * load(&ups[j]));
            write_row(static_cast<T*>(args.out) + i * size, gates.data(), size);
        }
    }
}

template <typename T>
static void gate_of_kind(const GateArgs& args) {
    static void (*const kinds[])(const GateArgs&) = {
        gate<T, silu>, gate<T, gelu_quick>, gate<T, gelu_tanh>
    };
    kinds[args.kind](args);
}

// The largest of `count` values; NaN if one of them is.
static float largest_of(const float* values, int64_t count) {
    Vec most = all(values[0]);
    Ints has_nan = {};
    for (int64_t i = 0; i < count; i += W) {
        Vec some = load_some(values + i, count - i);
        for (int64_t lane = count - i; lane < W; lane++) some[lane] = values[0];
        most = larger(most, some);
        has_nan |= some != some;
    }
    for (int lane = 0; lane < W; lane++)
        if (has_nan[lane]) return NAN;
    return max_of(most);
}

// The first place of the largest value; of the first NaN, if there are any.
static int64_t argmax_of(const float* row, int64_t size) {
    constexpr int64_t CHUNK = 1024;  // only the one with the largest value is searched
    float most = largest_of(row, std::min(CHUNK, size));
    int64_t first = 0;
    for (int64_t i = CHUNK; i < size && most == most; i += CHUNK) {
        const float its = largest_of(row + i, std::min(CHUNK, size - i));
        if (its <= most) continue;
        most = its;
        first = i;
    }
    while (most == most ? row[first] != most : row[first] == row[first]) first++;
    return first;
}

extern "C" {
void argmax_float32(const ArgmaxArgs* args) {
    const int64_t work = args->num_rows * args->size;
#pragma omp parallel for num_threads(args->num_threads) if (work > SMALL_WORK)
    for (int64_t i = 0; i < args->num_rows; i++)
        args->out[i] = argmax_of(args->x + i * args->size, args->size);
}
void rms_norm_float32(const NormArgs* args) { rms_norm<float>(*args); }
void rms_norm_bfloat16(const NormArgs* args) { rms_norm<BFloat16>(*args); }
void rms_norm_float16(const NormArgs* args) { rms_norm<Float16>(*args); }
void gate_float32(const GateArgs* args) { gate_of_kind<float>(*args); }
void gate_bfloat16(const GateArgs* args) { gate_of_kind<BFloat16>(*args); }
void gate_float16(const GateArgs* args) { gate_of_kind<Float16>(*args); }
}
