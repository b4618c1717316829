// A dense layer and a tree, a token at a time, by BLAS routines whose addresses are given: fff_primitive.py compiles
// this, so that no call from Python is between two products.
//
// Weights are rows of one neuron each, in and out [neurons, hidden]. Both layers do per neuron what the other does: a
// dot product and its gelu, then the output row times that. The tree does so for one neuron a level (Belcak &
// Wattenhofer, arXiv:2311.10770, algorithm 1), the dense layer for all.

#include <cmath>
#include <cstdint>
#include <vector>

namespace {

template <typename T>
struct Blas {
    T (*dot)(int*, T*, int*, T*, int*);
    void (*axpy)(int*, T*, T*, int*, T*, int*);
    void (*copy)(int*, T*, int*, T*, int*);
    void (*gemv)(char*, int*, int*, T*, T*, int*, T*, int*, T*, T*, int*);
};

// `levels` is 0 for a dense layer, which visits all of its `neurons`.
template <typename T>
struct Layer {
    int hidden, neurons, levels;
    T* in;
    T* out;
};

template <typename T>
T gelu(T logit) {
    return logit * T(0.5) * (T(1) + std::erf(logit * T(0.70710678118654752440)));
}

template <typename T>
int64_t child(int64_t node, T logit) {
    return 2 * node + 1 + (logit > 0);
}

// W x [count], for rows W [count, hidden]; row-major rows are columns to BLAS.
template <typename T>
void multiply(const Blas<T>& blas, int hidden, int count, T* rows, T* x, T* y) {
    int one = 1;
    T factor = 1, nothing = 0;
    char transposed = 'T';
    blas.gemv(&transposed, &hidden, &count, &factor, rows, &hidden, x, &one, &nothing, y, &one);
}

// a W [hidden], for rows W [count, hidden].
template <typename T>
void combine(const Blas<T>& blas, int hidden, int count, T* rows, T* a, T* y) {
    int one = 1;
    T factor = 1, nothing = 0;
    char plain = 'N';
    blas.gemv(&plain, &hidden, &count, &factor, rows, &hidden, a, &one, &nothing, y, &one);
}

// y must be zero.
template <typename T>
void level_1(const Blas<T>& blas, const Layer<T>& layer, T* x, T* y) {
    int hidden = layer.hidden, one = 1;
    int64_t node = 0;
    for (int step = 0; step < (layer.levels ? layer.levels : layer.neurons); step++) {
        T logit = blas.dot(&hidden, x, &one, layer.in + node * hidden, &one);
        T active = gelu(logit);
        blas.axpy(&hidden, &active, layer.out + node * hidden, &one, y, &one);
        node = layer.levels ? child(node, logit) : node + 1;
    }
}

template <typename T>
void dense_level_2(const Blas<T>& blas, const Layer<T>& layer, T* logits, T* x, T* y) {
    multiply(blas, layer.hidden, layer.neurons, layer.in, x, logits);
    for (int neuron = 0; neuron < layer.neurons; neuron++) logits[neuron] = gelu(logits[neuron]);
    combine(blas, layer.hidden, layer.neurons, layer.out, logits, y);
}

// A level is known only after the one above it, so that each is a matrix of one row. Output rows are gathered.
template <typename T>
void tree_level_2(const Blas<T>& blas, const Layer<T>& layer, T* logits, T* rows, T* x, T* y) {
    int hidden = layer.hidden, one = 1;
    int64_t node = 0;
    for (int level = 0; level < layer.levels; level++) {
        multiply(blas, hidden, 1, layer.in + node * hidden, x, logits + level);
        blas.copy(&hidden, layer.out + node * hidden, &one, rows + int64_t(level) * hidden, &one);
        node = child(node, logits[level]);
    }
    for (int level = 0; level < layer.levels; level++) logits[level] = gelu(logits[level]);
    combine(blas, hidden, layer.levels, rows, logits, y);
}

template <typename T>
void run(void* const* routines, int blas_level, int64_t tokens, const Layer<T>& layer, T* x, T* y) {
    Blas<T> blas{};
    blas.dot = reinterpret_cast<decltype(blas.dot)>(routines[0]);
    blas.axpy = reinterpret_cast<decltype(blas.axpy)>(routines[1]);
    blas.copy = reinterpret_cast<decltype(blas.copy)>(routines[2]);
    blas.gemv = reinterpret_cast<decltype(blas.gemv)>(routines[3]);
    std::vector<T> logits(layer.neurons), rows(int64_t(layer.levels) * layer.hidden);
    for (int64_t token = 0; token < tokens; token++, x += layer.hidden, y += layer.hidden) {
        if (blas_level == 1) {
            level_1(blas, layer, x, y);
        } else if (layer.levels) {
            tree_level_2(blas, layer, logits.data(), rows.data(), x, y);
        } else {
            dense_level_2(blas, layer, logits.data(), x, y);
        }
    }
}

}  // namespace

extern "C" void run_fp32(
    void* const* routines, int blas_level, int64_t tokens, int hidden, int neurons, int levels, float* in, float* out,
    float* x, float* y) {
    run<float>(routines, blas_level, tokens, {hidden, neurons, levels, in, out}, x, y);
}

extern "C" void run_fp64(
    void* const* routines, int blas_level, int64_t tokens, int hidden, int neurons, int levels, double* in, double* out,
    double* x, double* y) {
    run<double>(routines, blas_level, tokens, {hidden, neurons, levels, in, out}, x, y);
}
