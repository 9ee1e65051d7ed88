// Vectors of a width that is a template parameter, by the vector extension of GCC and Clang.
//
// Every function lives in a namespace named after the instruction set that it is compiled for, so that the linker never
// takes one object's code for another's. For the same reason no template of the standard library is used below it.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

namespace PARADIGMS_ISA {

template <class T, int N>
struct Lanes;

template <int N>
struct Lanes<float, N> {
    typedef float Scalar;
    typedef float V __attribute__((vector_size(N * sizeof(float))));
    typedef int32_t I __attribute__((vector_size(N * sizeof(int32_t))));
    typedef uint32_t U __attribute__((vector_size(N * sizeof(uint32_t))));
    static constexpr int count = N;
};

template <int N>
struct Lanes<double, N> {
    typedef double Scalar;
    typedef double V __attribute__((vector_size(N * sizeof(double))));
    typedef int64_t I __attribute__((vector_size(N * sizeof(int64_t))));
    typedef uint64_t U __attribute__((vector_size(N * sizeof(uint64_t))));
    static constexpr int count = N;
};

#define INLINE inline __attribute__((always_inline))
#define OUTLINE __attribute__((noinline))
#define UNROLL _Pragma("GCC unroll 16")

template <class S>
INLINE typename S::V load(const typename S::Scalar* from) {
    typename S::V v;
    memcpy(&v, from, sizeof v);
    return v;
}

template <class S>
INLINE void store(typename S::Scalar* to, typename S::V v) {
    memcpy(to, &v, sizeof v);
}

template <class S>
INLINE typename S::V all(typename S::Scalar x) {
    return x - typename S::V{};  // -0 is kept, unlike by a sum
}

// The first `count` elements, zeros after them.
template <class S>
INLINE typename S::V load_some(const typename S::Scalar* from, int64_t count) {
    if (count >= S::count) return load<S>(from);
    typename S::Scalar padded[S::count] = {};
    for (int64_t i = 0; i < count; i++) padded[i] = from[i];
    return load<S>(padded);
}

template <class S>
INLINE void store_some(typename S::Scalar* to, typename S::V v, int64_t count) {
    if (count >= S::count) return store<S>(to, v);
    for (int64_t i = 0; i < count; i++) to[i] = v[i];
}

template <class S>
INLINE typename S::I lane_numbers() {
    typename S::I numbers{};
    for (int i = 0; i < S::count; i++) numbers[i] = i;
    return numbers;
}

template <class S>
INLINE typename S::V larger(typename S::V a, typename S::V b) {
    return a > b ? a : b;
}

// The elements whose mask has all bits set, zeros in the place of the others, whatever they are.
template <class S>
INLINE typename S::V choose(typename S::V x, typename S::V mask) {
    return (typename S::V)((typename S::I)x & (typename S::I)mask);
}

// e^x for x <= 88; exactly zero below -87.3, -inf included. Cephes' polynomial, two units in the last place.
template <int N>
INLINE typename Lanes<float, N>::V exponential(typename Lanes<float, N>::V x) {
    typedef typename Lanes<float, N>::V V;
    typedef typename Lanes<float, N>::I I;
    const V shifted = x * 1.44269504f + 12582912.0f;  // rounds to an integer, which stands in the low bits
    const V n = shifted - 12582912.0f;
    const V r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    V p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    const V y = (V)((I)p + ((I)shifted << 23));
    return x < -87.3f ? V{} : y;
}

template <class S>
INLINE typename S::V exponential(typename S::V x) {
    if constexpr (sizeof(typename S::Scalar) == sizeof(float)) {
        return exponential<S::count>(x);
    } else {
        for (int i = 0; i < S::count; i++) x[i] = exp(x[i]);
        return x;
    }
}

template <int... I>
struct Numbers {};
template <int N, int... I>
struct CountTo : CountTo<N - 1, N - 1, I...> {};
template <int... I>
struct CountTo<0, I...> {
    typedef Numbers<I...> Type;
};

// The elements of a and b, one from each in turn, from element `from` on.
template <class S, int from, int... I>
INLINE typename S::V interleave(typename S::V a, typename S::V b, Numbers<I...>) {
#if defined(__clang__) || __GNUC__ >= 12
    return __builtin_shufflevector(a, b, (from + I / 2 + I % 2 * S::count)...);
#else
    return __builtin_shuffle(a, b, typename S::I{(from + I / 2 + I % 2 * S::count)...});
#endif
}

// rows[i][j] becomes rows[j][i], by interleaving halves as often as the width can be halved.
template <class S>
INLINE void transpose(typename S::V (&rows)[S::count]) {
    constexpr int n = S::count;
    const typename CountTo<n>::Type lanes;
    UNROLL
    for (int width = 1; width < n; width *= 2) {
        typename S::V next[n];
        UNROLL
        for (int i = 0; i < n / 2; i++) {
            next[2 * i] = interleave<S, 0>(rows[i], rows[i + n / 2], lanes);
            next[2 * i + 1] = interleave<S, n / 2>(rows[i], rows[i + n / 2], lanes);
        }
        UNROLL
        for (int i = 0; i < n; i++)
            rows[i] = next[i];
    }
}

// The finalizer of MurmurHash3, of 32 bits in lanes of any width.
template <class S>
INLINE typename S::U scramble(typename S::U x) {
    x = (x ^ (x >> 16)) * 0x85ebca6bu & 0xffffffffu;
    x = (x ^ (x >> 13)) * 0xc2b2ae35u & 0xffffffffu;
    return x ^ (x >> 16);
}

// What dropout multiplies weights with, 0 or 1 / keep, by their numbers and a key.
template <class S>
INLINE typename S::V keep_some(typename S::U numbers, uint64_t seed, int64_t stream, double keep) {
    const uint64_t key = (seed + stream + 1) * 0x9e3779b97f4a7c15u;
    numbers = scramble<S>((numbers ^ (uint32_t)(key >> 32)) & 0xffffffffu);
    numbers = scramble<S>((numbers + (uint32_t)key) & 0xffffffffu);
    return numbers < (uint32_t)(keep * 4294967295.0) ? all<S>(1 / keep) : typename S::V{};
}

}  // namespace PARADIGMS_ISA
