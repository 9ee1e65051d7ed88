// Softmax attention with every term of Eq. 4 (arXiv:2112.12786) in windows, forward and backward, and the products of
// weights, values and a filter of which any other attention in windows is made.
//
// Lanes are windows: every place of a window is a vector of as many windows, so that no window is too small to fill
// one, a softmax is vertical, and entries of a table are broadcast.
#pragma once

#include "products.h"

namespace PARADIGMS_ISA {

constexpr int QUERIES = 3;  // that go together

// What one block of logits is made of; `left` is q, or zeros where q·k is no term.
template <class T>
struct LogitOperands {
    const T *q, *left, *k;
    int64_t q_row, left_row, left_step, k_row;
    const T *rk[QUERIES], *rq[QUERIES], *rb[QUERIES];  // by query, from the first key on
    int64_t table_row, head_dim;
};

// into[c][t] = rb_c[t] + Σ_d (left_c[d] with rq_c[t][d]) k_t[d] + q_c[d] rk_c[t][d]
template <class S, int C, int T, bool DOT, bool RK, Table RQ>
INLINE void logits_block(typename S::Scalar* into, int64_t into_row, const LogitOperands<typename S::Scalar>& of,
                         int64_t key) {
    typename S::V sum[C][T];
    UNROLL
    for (int c = 0; c < C; c++) UNROLL
        for (int t = 0; t < T; t++) sum[c][t] = all<S>(of.rb[c][key + t]);
    for (int64_t d = 0; d < of.head_dim; d++) {
        UNROLL
        for (int c = 0; c < C; c++) {
            if constexpr (RK) {
                const typename S::V query = load<S>(of.q + c * of.q_row + d * S::count);
                UNROLL
                for (int t = 0; t < T; t++)
                    sum[c][t] += query * of.rk[c][(key + t) * of.table_row + d];
            }
        }
        if constexpr (DOT || RQ != ABSENT) {
            typename S::V left[C];
            UNROLL
            for (int c = 0; c < C; c++)
                left[c] = load<S>(of.left + c * of.left_row + d * of.left_step);
            UNROLL
            for (int t = 0; t < T; t++) {
                const typename S::V right = load<S>(of.k + (key + t) * of.k_row + d * S::count);
                UNROLL
                for (int c = 0; c < C; c++)
                    sum[c][t] += meet<RQ>(left[c], of.rq[c], (key + t) * of.table_row + d) * right;
            }
        }
    }
    UNROLL
    for (int c = 0; c < C; c++) UNROLL
        for (int t = 0; t < T; t++) store<S>(into + c * into_row + (key + t) * S::count, sum[c][t]);
}

template <class S, int C, bool DOT, bool RK, Table RQ>
OUTLINE void logits_row(typename S::Scalar* into, int64_t into_row, const LogitOperands<typename S::Scalar>& of,
                        int64_t keys) {
    constexpr int wide = PARADIGMS_VECTOR_BYTES == 64 ? 7 : 4;
    int64_t key = 0;
    for (; key + wide <= keys; key += wide) logits_block<S, C, wide, DOT, RK, RQ>(into, into_row, of, key);
    for (; key + 3 <= keys; key += 3) logits_block<S, C, 3, DOT, RK, RQ>(into, into_row, of, key);
    for (; key < keys; key++) logits_block<S, C, 1, DOT, RK, RQ>(into, into_row, of, key);
}

// One thread's work on groups of windows of one case.
template <class T>
struct Windows {
    typedef Lanes<T, PARADIGMS_VECTOR_BYTES / sizeof(T)> Full;
    typedef Lanes<T, PARADIGMS_VECTOR_BYTES / sizeof(T) / 2> Half;
    static constexpr int L = Full::count;

    const WindowCase& c;
    Arena* const arena;
    const Task task;
    const bool backward, attends;
    const int64_t rows, columns, places, head_dim, depth, span, offsets, num_windows;
    int64_t head = 0, first = 0, lanes = 0;  // the windows at work
    bool masked = false;
    struct Pixel {
        int32_t y, x;  // y is -1 outside the map
    };
    Pixel* pixels = nullptr;  // (places, lanes)
    int64_t image[L];
    int64_t* positions = nullptr;  // (places, lanes), of maps with the strides of `located`
    Map located;
    T *q = nullptr, *k = nullptr, *v = nullptr, *grad = nullptr, *mixed = nullptr;  // (places, depth)
    T *zeros = nullptr, *none = nullptr;                                            // a vector, a bias for every place
    T *rk = nullptr, *rq = nullptr, *rb = nullptr;                                  // one head's tables
    T *weights = nullptr, *dlogits = nullptr;                                       // (places, places)
    T *region = nullptr, *regions = nullptr;    // of the windows at work, of all of an image
    T *filters = nullptr, *dfilters = nullptr;  // one head's; sums, a vector each
    T *drk = nullptr, *drq = nullptr, *drb = nullptr, *doutside_k = nullptr, *doutside_v = nullptr;

    Windows(const WindowCase& of, Task asked, Arena* memory)
        : c(of), arena(memory), task(asked), backward(asked == BACKWARD), attends(asked == FORWARD || backward),
          rows(of.window[0]), columns(of.window[1]), places(rows * columns), head_dim(of.head_dim),
          depth(round_up(of.head_dim, CHANNELS)), span(2 * columns - 1), offsets((2 * rows - 1) * span),
          num_windows(of.batch * of.count[0] * of.count[1]) {}

    bool create() {
        const int64_t map = places * depth * L, table = offsets * depth;
        bool enough = (pixels = allocate<Pixel>(arena, places * L)) &&
                      (positions = allocate<int64_t>(arena, places * L)) && (q = allocate<T>(arena, map)) &&
                      (k = allocate<T>(arena, map)) && (v = allocate<T>(arena, map)) &&
                      (mixed = allocate<T>(arena, map)) && (zeros = allocate<T>(arena, depth + L)) &&
                      (none = allocate<T>(arena, places)) && (rk = allocate<T>(arena, table)) &&
                      (rq = allocate<T>(arena, table)) && (rb = allocate<T>(arena, offsets)) &&
                      (region = allocate<T>(arena, places * L)) &&
                      (weights = allocate<T>(arena, (task == FORWARD ? QUERIES : places) * places * L));
        if (!attends && task != CORRELATE) enough = enough && (filters = allocate<T>(arena, table));
        if (task == CORRELATE) enough = enough && (dfilters = allocate<T>(arena, table * L));
        if (backward)
            enough = enough && (grad = allocate<T>(arena, map)) &&
                     (dlogits = allocate<T>(arena, places * places * L)) && (drk = allocate<T>(arena, table * L)) &&
                     (drq = allocate<T>(arena, table * L)) && (drb = allocate<T>(arena, offsets * L)) &&
                     (doutside_k = allocate<T>(arena, depth)) && (doutside_v = allocate<T>(arena, depth));
        if (c.row_region) enough = enough && (regions = allocate<T>(arena, c.count[0] * c.count[1] * places));
        if (enough && regions) find_regions();
        return enough;
    }

    // The row of a table for a query and a key.
    INLINE int64_t offset(int64_t query, int64_t key) const {
        return (key / columns - query / columns + rows - 1) * span + key % columns - query % columns + columns - 1;
    }

    // Where the places of the windows at work stand.
    OUTLINE void find_places() {
        located = Map{nullptr, -1, -1, -1, -1};
        for (int64_t lane = 0; lane < L; lane++) {
            const int64_t window = first + (lane < lanes ? lane : 0);
            const int64_t across = window % c.count[1], down = window / c.count[1] % c.count[0];
            image[lane] = window / (c.count[0] * c.count[1]);
            for (int64_t y = 0; y < rows; y++)
                for (int64_t x = 0; x < columns; x++) {
                    const int32_t row = c.row_at[down * rows + y], column = c.column_at[across * columns + x];
                    Pixel& at = pixels[(y * columns + x) * L + lane];
                    at = {row, column};
                    if (lane >= lanes || row < 0 || column < 0) at.y = -1;
                }
        }
    }

    // Where each place (places, lanes) lies in a map; -1 outside, and in lanes without a window.
    const int64_t* locate(const Map& map) {
        const bool known = located.batch == map.batch && located.row == map.row && located.column == map.column &&
                           located.head == map.head;
        if (!known)
            for (int64_t i = 0; i < places * L; i++) {
                const Pixel at = pixels[i];
                positions[i] =
                    at.y < 0 ? -1 : image[i % L] * map.batch + at.y * map.row + at.x * map.column + head * map.head;
            }
        located = map;
        return positions;
    }

    // Squares of lanes by channels, as large as the channels can fill. One wider than the vectors at work spills over
    // into what is written after it: its lanes beyond them hold zeros.
    template <class F>
    INLINE void over_tiles(int64_t channels, F f) {
        if (channels % L)
            f(Half{});
        else
            f(Full{});
    }

    template <class S>
    OUTLINE void gather(T* to, const Map& map, const T* outside, T factor, int64_t channels, int64_t depth) {
        const int64_t* at = locate(map);
        constexpr int64_t line = 64 / sizeof(T);
        const T *data = static_cast<const T*>(map.data), *filler = outside ? outside + head * channels : zeros;
        over_tiles(channels, [&](auto square) {
            typedef decltype(square) Q;
            constexpr int n = Q::count;
            for (int64_t place = 0; place < places; place++)
                for (int64_t lane = 0; lane < S::count; lane += n) {
                    const T* from[n];
                    for (int i = 0; i < n; i++) {
                        const int64_t here = at[place * L + lane + i];
                        from[i] = here >= 0 ? data + here : lane + i < lanes ? filler : zeros;
                        if (place + 2 < places)
                            for (int64_t d = 0; d < channels; d += line)
                                __builtin_prefetch(data + at[(place + 2) * L + lane + i] + d);
                    }
                    for (int64_t d = 0; d < channels; d += n) {
                        typename Q::V tile[n];
                        if (channels - d >= n) {
                            UNROLL
                            for (int i = 0; i < n; i++)
                                tile[i] = load<Q>(from[i] + d);
                        } else {
                            for (int i = 0; i < n; i++) tile[i] = load_some<Q>(from[i] + d, channels - d);
                        }
                        transpose<Q>(tile);
                        UNROLL
                        for (int j = 0; j < n; j++)
                            if (d + j < depth)
                                store<Q>(to + (place * depth + d + j) * S::count + lane, tile[j] * factor);
                    }
                }
        });
    }

    template <class S>
    INLINE void gather(T* to, const Map& map, const T* outside = nullptr, T factor = 1) {
        gather<S>(to, map, outside, factor, head_dim, depth);
    }

    // The inverse of `gather`; what stands outside the map is added to `outside`.
    template <class S>
    OUTLINE void scatter(const T* from, const Map& map, T* outside, T factor, int64_t channels, int64_t depth) {
        const int64_t* at = locate(map);
        over_tiles(channels, [&](auto square) {
            typedef decltype(square) Q;
            constexpr int n = Q::count;
            for (int64_t place = 0; place < places; place++)
                for (int64_t lane = 0; lane < lanes; lane += n)
                    for (int64_t d = 0; d < channels; d += n) {
                        typename Q::V tile[n];
                        UNROLL
                        for (int j = 0; j < n; j++)
                            tile[j] = d + j < depth ? load<Q>(from + (place * depth + d + j) * S::count + lane) * factor
                                                    : typename Q::V{};
                        transpose<Q>(tile);
                        for (int i = 0; i < n && lane + i < lanes; i++) {
                            const int64_t here = at[place * L + lane + i];
                            if (here >= 0)
                                store_some<Q>(static_cast<T*>(map.data) + here + d, tile[i], channels - d);
                            else if (outside)
                                for (int j = 0; j < n && d + j < channels; j++) outside[d + j] += tile[i][j];
                        }
                    }
        });
    }

    template <class S>
    INLINE void scatter(const T* from, const Map& map, T* outside = nullptr, T factor = 1) {
        scatter<S>(from, map, outside, factor, head_dim, depth);
    }

    // The regions of the places of every window of an image, (windows, places).
    void find_regions() {
        for (int64_t window = 0; window < c.count[0] * c.count[1]; window++)
            for (int64_t place = 0; place < places; place++) {
                const int32_t y = c.row_region[window / c.count[1] * rows + place / columns];
                const int32_t x = c.column_region[window % c.count[1] * columns + place % columns];
                regions[window * places + place] = y < 0 || x < 0 ? -1 : y * 4 + x;
            }
    }

    template <class S>
    OUTLINE void load_regions() {
        masked = false;
        if (!regions) return;
        for (int64_t lane = 0; lane < S::count; lane++) {
            const T* from = regions + (first + (lane < lanes ? lane : 0)) % (c.count[0] * c.count[1]) * places;
            for (int64_t place = 0; place < places; place++) {
                region[place * S::count + lane] = from[place];
                masked = masked || from[place] != from[0];
            }
        }
    }

    OUTLINE void load_tables() {
        const T scale = c.has_dot ? c.scale : 1;
        const int64_t at = head * offsets;
        if (c.rk)
            load_table<Full>(rk, static_cast<const T*>(c.rk) + at * head_dim, head_dim, offsets, head_dim, depth,
                             scale);
        if (c.rq)
            load_table<Full>(rq, static_cast<const T*>(c.rq) + at * head_dim, head_dim, offsets, head_dim, depth, T(1));
        if (c.rb) memcpy(rb, static_cast<const T*>(c.rb) + at, offsets * sizeof(T));
    }

    template <class S>
    void load_windows() {
        find_places();
        if (c.q.data) gather<S>(q, c.q, nullptr, c.has_dot ? c.scale : 1);
        if (c.k.data) gather<S>(k, c.k, static_cast<const T*>(c.outside_k), 1);
        gather<S>(v, c.v, static_cast<const T*>(c.outside_v), 1);
        if (backward) gather<S>(grad, c.grad, nullptr, 1);
        load_regions<S>();
    }

    // Logits of `count` queries, one or QUERIES.
    template <class S, int C>
    INLINE void make_logits(T* into, int64_t query) {
        const int64_t row = places * S::count;
        for (int64_t key = 0; key < places; key += columns) {
            LogitOperands<T> of{};
            of.q = q + query * depth * S::count, of.q_row = depth * S::count;
            of.left = c.has_dot ? of.q : zeros, of.left_row = c.has_dot ? of.q_row : 0,
            of.left_step = c.has_dot ? S::count : 0;
            of.k = k + key * depth * S::count, of.k_row = depth * S::count;
            for (int i = 0; i < C; i++) {
                const int64_t o = offset(query + i, key);
                of.rk[i] = rk + o * depth, of.rq[i] = rq + o * depth, of.rb[i] = rb + o;
            }
            of.table_row = depth, of.head_dim = head_dim;
            T* to = into + key * S::count;
            if (c.rk && c.rq) logits_row<S, C, true, true, ADDED>(to, row, of, columns);
            if (c.rk && !c.rq && c.has_dot) logits_row<S, C, true, true, ABSENT>(to, row, of, columns);
            if (c.rk && !c.rq && !c.has_dot) logits_row<S, C, false, true, ABSENT>(to, row, of, columns);
            if (!c.rk && c.rq) logits_row<S, C, true, false, ADDED>(to, row, of, columns);
            if (!c.rk && !c.rq && c.has_dot) logits_row<S, C, true, false, ABSENT>(to, row, of, columns);
            if (!c.rk && !c.rq && !c.has_dot) logits_row<S, C, false, false, ABSENT>(to, row, of, columns);
        }
        if (masked)
            for (int i = 0; i < C; i++) exclude<S>(into + i * row, query + i);
    }

    template <class S>
    OUTLINE void exclude(T* logits, int64_t query) {
        const typename S::V nothing = all<S>(-INFINITY), own = load<S>(region + query * S::count);
        for (int64_t key = 0; key < places; key++) {
            T* logit = logits + key * S::count;
            store<S>(logit, load<S>(region + key * S::count) != own && key != query ? nothing : load<S>(logit));
        }
    }

    // What dropout multiplies a weight of each window with: 0 or 1 / keep.
    template <class S>
    INLINE typename S::V dropped(int64_t query, int64_t key) const {
        typename S::U counter = (typename S::U)lane_numbers<S>() + (uint32_t)first;
        counter = counter * (uint32_t)(places * places) + (uint32_t)(query * places + key);
        return keep_some<S>(counter, c.seed, head, c.keep);
    }

    // Calls f(which, first query) for queries in blocks of QUERIES, then for the rest one by one.
    template <class F>
    INLINE void over_queries(F f) {
        int64_t query = 0;
        for (; query + QUERIES <= places; query += QUERIES) f(Count<QUERIES>{}, query);
        for (; query < places; query++) f(Count<1>{}, query);
    }
    template <int N>
    struct Count {
        static constexpr int value = N;
    };

    // into[r] = Σ_t w_r[t] (b_t with table_r[t]) over all places t, for C places from `place` on. `w_step` leads from
    // w_r[t] to the next, `w_row` from row to row; tables go forward with the key, backward with the query.
    template <class S, int C, Table TABLE>
    OUTLINE void mix(T* into, const T* w, int64_t w_row, int64_t w_step, const T* b, bool b_is_zero, int64_t place,
                     const T* table, bool table_of_keys) {
        for (int64_t d = 0; d < depth; d += CHANNELS) {
            typename S::V sum[BAND][CHANNELS] = {};
            const T *weight[BAND] = {}, *tables[BAND] = {};
            const int64_t run = TABLE != ABSENT ? columns : places;
            for (int64_t t = 0; t < places; t += run) {
                for (int r = 0; r < C; r++) {
                    weight[r] = w + r * w_row + t * w_step;
                    if (TABLE != ABSENT)
                        tables[r] = table + (table_of_keys ? offset(place + r, t) : offset(t, place + r)) * depth + d;
                }
                const int64_t table_step = table_of_keys ? depth : -depth;
                if (b_is_zero)
                    mix_rows<S, 0, C, TABLE>(sum, weight, w_step, zeros, 0, 0, tables, table_step, run);
                else
                    mix_rows<S, 0, C, TABLE>(sum, weight, w_step, b + (t * depth + d) * S::count, S::count,
                                             depth * S::count, tables, table_step, run);
            }
            for (int r = 0; r < C; r++)
                for (int j = 0; j < CHANNELS; j++) store<S>(into + ((place + r) * depth + d + j) * S::count, sum[r][j]);
        }
    }

    // Of a query: the largest logit, then the sum of the exponentials; null outside the map.
    INLINE T* normalizer_of(int64_t lane, int64_t place) const {
        const Pixel at = pixels[place * L + lane];
        const int64_t pixel = (image[lane] * c.height + at.y) * c.width + at.x;
        return at.y < 0 ? nullptr : static_cast<T*>(c.normalizer) + (pixel * c.heads + head) * 2;
    }

    template <class S>
    void forward() {
        typedef typename S::V V;
        load_windows<S>();
        const int64_t row = places * S::count;
        over_queries([&](auto which, int64_t query) {
            constexpr int C = decltype(which)::value;
            make_logits<S, C>(weights, query);
            V inverse[C];
            for (int i = 0; i < C; i++) {
                T* logit = weights + i * row;
                V top = load<S>(logit), total = {};
                for (int64_t key = 1; key < places; key++) top = larger<S>(top, load<S>(logit + key * S::count));
                for (int64_t key = 0; key < places; key++) {
                    V weight = exponential<S>(load<S>(logit + key * S::count) - top);
                    total += weight;
                    if (c.keep < 1) weight *= dropped<S>(query + i, key);
                    store<S>(logit + key * S::count, weight);
                }
                inverse[i] = 1 / total;
                for (int64_t lane = 0; lane < lanes; lane++)
                    if (T* to = normalizer_of(lane, query + i)) to[0] = top[lane], to[1] = total[lane];
            }
            mix<S, C, ABSENT>(mixed, weights, row, S::count, v, false, query, nullptr, true);
            for (int i = 0; i < C; i++)
                for (int64_t d = 0; d < depth; d++) {
                    T* value = mixed + ((query + i) * depth + d) * S::count;
                    store<S>(value, load<S>(value) * inverse[i]);
                }
        });
        scatter<S>(mixed, c.out, nullptr, 1);
    }

    template <class S>
    void do_backward() {
        load_windows<S>();
        const int64_t row = places * S::count;
        const T scale = c.has_dot ? c.scale : 1;
        over_queries([&](auto which, int64_t query) {
            constexpr int C = decltype(which)::value;
            make_logits<S, C>(weights + query * row, query);
            LogitOperands<T> of{};
            of.left = grad + query * depth * S::count, of.left_row = depth * S::count, of.left_step = S::count;
            of.k = v, of.k_row = depth * S::count, of.head_dim = head_dim;
            for (int i = 0; i < C; i++) of.rb[i] = none;
            logits_row<S, C, true, false, ABSENT>(dlogits + query * row, row, of, places);
            for (int i = 0; i < C; i++) differentiate<S>(query + i);
            if (!c.dq.data) return;
            const T* w = dlogits + query * row;
            if (c.rk)
                mix<S, C, ADDED>(mixed, w, row, S::count, k, !c.has_dot, query, rk, true);
            else
                mix<S, C, ABSENT>(mixed, w, row, S::count, k, false, query, nullptr, true);
        });
        if (c.dq.data) scatter<S>(mixed, c.dq, nullptr, scale);
        if (c.dk.data) {
            over_queries([&](auto which, int64_t key) {
                constexpr int C = decltype(which)::value;
                const T* w = dlogits + key * S::count;
                if (c.rq)
                    mix<S, C, ADDED>(mixed, w, S::count, row, q, !c.has_dot, key, rq, false);
                else
                    mix<S, C, ABSENT>(mixed, w, S::count, row, q, false, key, nullptr, false);
            });
            scatter<S>(mixed, c.dk, doutside_k, 1);
        }
        over_queries([&](auto which, int64_t key) {
            constexpr int C = decltype(which)::value;
            mix<S, C, ABSENT>(mixed, weights + key * S::count, S::count, row, grad, false, key, nullptr, false);
        });
        scatter<S>(mixed, c.dv, doutside_v, 1);
        if (c.drk) add_to_table<S>(drk, dlogits, q, nullptr);
        if (c.drq) add_to_table<S>(drq, dlogits, nullptr, k);
        if (c.drb) add_to_biases<S>();
    }

    // From logits to weights and from their gradients to those of the logits, in place, of one query.
    template <class S>
    OUTLINE void differentiate(int64_t query) {
        typedef typename S::V V;
        T *weight = weights + query * places * S::count, *gradient = dlogits + query * places * S::count;
        V top = all<S>(INFINITY), total = top, delta = {};  // what is outside the map weighs nothing
        for (int64_t lane = 0; lane < lanes; lane++)
            if (const T* from = normalizer_of(lane, query)) top[lane] = from[0], total[lane] = from[1];
        const V inverse = 1 / total;
        for (int64_t key = 0; key < places; key++) {
            const int64_t at = key * S::count;
            const V p = exponential<S>(load<S>(weight + at) - top) * inverse;
            if (c.keep < 1) store<S>(gradient + at, load<S>(gradient + at) * dropped<S>(query, key));
            delta += p * load<S>(gradient + at);
            store<S>(weight + at, p);
        }
        for (int64_t key = 0; key < places; key++) {
            const int64_t at = key * S::count;
            const V p = load<S>(weight + at);
            store<S>(gradient + at, p * (load<S>(gradient + at) - delta));
            if (c.keep < 1) store<S>(weight + at, p * dropped<S>(query, key));
        }
    }

    // sums[o] += Σ w[i][j] a_i over the pairs that are offset o apart, or Σ w[i][j] b_j where there is no a, or, of
    // BOTH, Σ w[i][j] a_i b_j.
    template <class S, bool BOTH = false>
    OUTLINE void add_to_table(T* sums, const T* w, const T* a, const T* b) {
        for (int64_t down = 1 - rows; down < rows; down++)
            for (int64_t across = 1 - columns; across < columns; across++)
                for (int64_t d = 0; d < depth; d += CHANNELS) {
                    T* to = sums + (((down + rows - 1) * span + across + columns - 1) * depth + d) * L;
                    typename S::V sum[CHANNELS];
                    UNROLL
                    for (int j = 0; j < CHANNELS; j++)
                        sum[j] = load<S>(to + j * L);
                    const int64_t last_row = down > 0 ? rows - down : rows,
                                  last_column = across > 0 ? columns - across : columns;
                    for (int64_t y = down < 0 ? -down : 0; y < last_row; y++)
                        for (int64_t x = across < 0 ? -across : 0; x < last_column; x++) {
                            const int64_t query = y * columns + x, key = query + down * columns + across;
                            const typename S::V weight = load<S>(w + (query * places + key) * S::count);
                            const T* left = a ? a + (query * depth + d) * S::count : b + (key * depth + d) * S::count;
                            const T* right = BOTH ? b + (key * depth + d) * S::count : nullptr;
                            UNROLL
                            for (int j = 0; j < CHANNELS; j++)
                                sum[j] += BOTH ? weight * load<S>(left + j * S::count) * load<S>(right + j * S::count)
                                               : weight * load<S>(left + j * S::count);
                        }
                    UNROLL
                    for (int j = 0; j < CHANNELS; j++)
                        store<S>(to + j * L, sum[j]);
                }
    }

    template <class S>
    OUTLINE void add_to_biases() {
        const T* from = dlogits;
        for (int64_t query = 0; query < places; query++)
            for (int64_t y = 0; y < rows; y++) {
                T* to = drb + offset(query, y * columns) * L;
                for (int64_t x = 0; x < columns; x++, from += S::count, to += L)
                    store<S>(to, load<S>(to) + load<S>(from));
            }
    }

    // logits[i][j] = a_i·(m b_j) with m the filter of their offset.
    template <class S>
    void do_dot() {
        gather<S>(q, c.q), gather<S>(v, c.v);
        const int64_t row = places * S::count, step = depth * S::count;
        over_queries([&](auto which, int64_t query) {
            constexpr int C = decltype(which)::value;
            for (int64_t key = 0; key < places; key += columns) {
                LogitOperands<T> of{};
                of.left = q + query * step, of.left_row = step, of.left_step = S::count;
                of.k = v + key * step, of.k_row = step, of.table_row = depth, of.head_dim = head_dim;
                for (int i = 0; i < C; i++) of.rq[i] = filters + offset(query + i, key) * depth, of.rb[i] = none;
                logits_row<S, C, true, false, MULTIPLIED>(weights + query * row + key * S::count, row, of, columns);
            }
        });
        scatter<S>(weights, c.taps, nullptr, 1, places, places);
    }

    // What queries mix of their keys, or, `reversed`, keys of what queries send them.
    template <class S>
    void do_mix(bool reversed) {
        gather<S>(weights, c.taps, nullptr, 1, places, places), gather<S>(v, c.v);
        const int64_t row = places * S::count, w_row = reversed ? S::count : row, w_step = reversed ? row : S::count;
        over_queries([&](auto which, int64_t place) {
            constexpr int C = decltype(which)::value;
            mix<S, C, MULTIPLIED>(mixed, weights + place * w_row, w_row, w_step, v, false, place, filters, !reversed);
        });
        scatter<S>(mixed, c.out);
    }

    template <class S>
    void do_correlate() {
        gather<S>(weights, c.taps, nullptr, 1, places, places), gather<S>(q, c.q), gather<S>(v, c.v);
        add_to_table<S, true>(dfilters, weights, q, v);
    }

    template <class S>
    void do_task() {
        if (task == FORWARD) return forward<S>();
        if (task == BACKWARD) return do_backward<S>();
        find_places();
        if (task == DOT) do_dot<S>();
        if (task == MIX || task == SPREAD) do_mix<S>(task == SPREAD);
        if (task == CORRELATE) do_correlate<S>();
    }

    // Windows of which an item takes a group: all, or, of primitives, whose filters may differ, those of one image.
    static int64_t count_windows(const WindowCase& of, Task task) {
        return of.count[0] * of.count[1] * (task == FORWARD || task == BACKWARD ? of.batch : 1);
    }
    static int64_t count_items(const WindowCase& of, Task task) {
        const int64_t images = task == FORWARD || task == BACKWARD ? 1 : of.batch;
        return images * divide_up(count_windows(of, task), of.group) * of.heads;
    }

    // Item: `group` windows of one head; heads go fastest.
    void run(int64_t item) {
        head = item % c.heads;
        const int64_t together = count_windows(c, task), groups = divide_up(together, c.group);
        const int64_t at = item / c.heads / groups, start = at * together + item / c.heads % groups * c.group;
        const int64_t end = (at + 1) * together, stop = start + c.group < end ? start + c.group : end;
        if (attends) load_tables();
        if (backward) clear_sums();
        if (filters) load_filters(at);
        if (task == CORRELATE) memset(dfilters, 0, offsets * depth * L * sizeof(T));
        for (first = start; first < stop; first += lanes) {
            lanes = stop - first < L ? stop - first : L;
            if (lanes > Half::count)
                do_task<Full>();
            else
                do_task<Half>();
        }
        if (backward) write_sums_of(item);
        if (task == CORRELATE)
            write_sums<Full, T>(static_cast<T*>(c.dfilters) + item * offsets * head_dim, dfilters, offsets, head_dim,
                                depth, 1);
    }

    void load_filters(int64_t image) {
        if (!c.filters.data) {
            for (int64_t i = 0; i < offsets * depth; i++) filters[i] = 1;
            return;
        }
        const T* from = static_cast<const T*>(c.filters.data) + image * c.filters.batch + head * c.filters.head;
        load_table<Full>(filters, from, c.filters.row, offsets, head_dim, depth, T(1));
    }

    OUTLINE void clear_sums() {
        memset(drk, 0, offsets * depth * L * sizeof(T)), memset(drq, 0, offsets * depth * L * sizeof(T));
        memset(drb, 0, offsets * L * sizeof(T));
        memset(doutside_k, 0, depth * sizeof(T)), memset(doutside_v, 0, depth * sizeof(T));
    }

    void write_sums_of(int64_t item) {
        const T scale = c.has_dot ? c.scale : 1;
        const int64_t at = item * offsets;
        if (c.drk)
            write_sums<Full, T>(static_cast<T*>(c.drk) + at * head_dim, drk, offsets, head_dim, depth, 1 / scale);
        if (c.drq) write_sums<Full, T>(static_cast<T*>(c.drq) + at * head_dim, drq, offsets, head_dim, depth, 1);
        if (c.drb) write_sums<Full, T>(static_cast<T*>(c.drb) + at, drb, offsets, 1, 1, 1);
        const int64_t size = head_dim * sizeof(T);
        if (c.doutside_k) memcpy(static_cast<T*>(c.doutside_k) + item * head_dim, doutside_k, size);
        if (c.doutside_v) memcpy(static_cast<T*>(c.doutside_v) + item * head_dim, doutside_v, size);
    }
};

}  // namespace PARADIGMS_ISA
