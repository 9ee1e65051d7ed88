// Softmax attention with every term of Eq. 4 (arXiv:2112.12786) over sliding windows, forward and backward.
//
// Vectors run along columns. Three rows of queries go together, so that a key that is loaded once at a shift serves
// three of them. Position terms cost an addition instead of a product: q·k + rq·k = (q + rq)·k.
#pragma once

#include "plane.h"
#include "products.h"

namespace PARADIGMS_ISA {

// One thread's work on planes of one case.
template <class T>
struct Sliding {
    typedef Lanes<T, PARADIGMS_VECTOR_BYTES / sizeof(T)> Full;
    typedef Lanes<T, PARADIGMS_VECTOR_BYTES / sizeof(T) / 2> Half;
    static constexpr int L = Full::count;

    const SlidingCase& c;
    Arena* const arena;
    const int64_t height, width, head_dim, depth, rows, columns, taps, down, across;
    const Task task;
    int64_t first_tap, num_taps, halo, vectors;  // of the columns of the kernel that can reach the map
    Plane<T> q, k, v, grad, weights, dlogits;
    T *rk = nullptr, *rq = nullptr, *rb = nullptr;              // one head's tables, channels filled up to `depth`
    T* filters = nullptr;                                       // likewise
    T *logits = nullptr, *dweights = nullptr, *band = nullptr;  // of three rows of queries and one vector
    T *drk = nullptr, *drq = nullptr, *drb = nullptr;           // sums, a vector each; zeros where nothing is added
    T* dfilters = nullptr;                                      // likewise
    T *first_key = nullptr, *last_key = nullptr;
    int64_t band_stride;

    Sliding(const SlidingCase& of, Task asked, Arena* memory)
        : c(of), arena(memory), height(of.height), width(of.width), head_dim(of.head_dim),
          depth(round_up(of.head_dim, CHANNELS)), rows(of.kernel[0]), columns(of.kernel[1]),
          taps(of.kernel[0] * of.kernel[1]), down(of.dilation[0]), across(of.dilation[1]), task(asked) {
        const int64_t centre = columns / 2, reach = (width - 1) / across;
        const int64_t usable = reach < centre ? reach : centre;
        first_tap = centre - usable, num_taps = 2 * usable + 1, halo = usable * across;
        vectors = round_up(width, L);
        band_stride = vectors;
    }

    bool create() {
        const bool attends = task == FORWARD || task == BACKWARD;
        bool enough =
            (band = allocate<T>(arena, BAND * depth * band_stride)) && (logits = allocate<T>(arena, BAND * taps * L));
        if (task != REVERSE) enough = enough && v.create(arena, height, depth, vectors, halo);
        if (attends || task == DOT || task == CORRELATE)
            enough = enough && q.create(arena, height, depth, vectors, halo);
        if (attends)
            enough = enough && k.create(arena, height, depth, vectors, halo) &&
                     (rk = allocate<T>(arena, taps * depth)) && (rq = allocate<T>(arena, taps * depth)) &&
                     (rb = allocate<T>(arena, taps)) && (first_key = allocate<T>(arena, vectors)) &&
                     (last_key = allocate<T>(arena, vectors));
        if (c.filters.data) enough = enough && (filters = allocate<T>(arena, taps * depth));
        if (task == CORRELATE) enough = enough && (dfilters = allocate<T>(arena, taps * depth * L));
        if (task != FORWARD) enough = enough && weights.create(arena, height, taps, vectors, halo);
        if (task == BACKWARD || task == REVERSE) enough = enough && dlogits.create(arena, height, taps, vectors, halo);
        if (task == BACKWARD)
            enough = enough && grad.create(arena, height, depth, vectors, halo) &&
                     (dweights = allocate<T>(arena, BAND * taps * L)) && (drk = allocate<T>(arena, taps * depth * L)) &&
                     (drq = allocate<T>(arena, taps * depth * L)) && (drb = allocate<T>(arena, taps * L));
        if (enough && attends && c.first_column)
            for (int64_t x = 0; x < vectors; x++) {
                first_key[x] = x < width ? c.first_column[x] : 0;
                last_key[x] = x < width ? c.last_column[x] : vectors;
            }
        return enough;
    }

    // Calls f with the lanes and the column of each vector; half a vector where this is enough for the rest.
    template <class F>
    INLINE void over_columns(F f) {
        int64_t x = 0;
        for (; width - x > Half::count; x += L) f(Full{}, x);
        if (x < width) f(Half{}, x);
    }

    // Calls f with lanes, a first column and how many of them; half a vector where it holds the rest.
    template <class F>
    INLINE void over_width(F f) {
        const int64_t whole = width - width % L, rest = width - whole;
        if (rest > Half::count) return f(Full{}, 0, width);
        if (whole) f(Full{}, 0, whole);
        if (rest) f(Half{}, whole, rest);
    }

    void load_plane(int64_t image, int64_t head) {
        const T scale = c.has_dot ? c.scale : 1;
        if (c.q.data) pack<Full, T>(q, c.q, image, head, width, head_dim, scale);
        if (c.k.data) pack<Full, T>(k, c.k, image, head, width, head_dim, 1);
        pack<Full, T>(v, c.v, image, head, width, head_dim, 1);
        if (task == BACKWARD) pack<Full, T>(grad, c.grad, image, head, width, head_dim, 1);
        const int64_t at = head * taps;
        if (c.rk)
            load_table<Full>(rk, static_cast<const T*>(c.rk) + at * head_dim, head_dim, taps, head_dim, depth, scale);
        if (c.rq)
            load_table<Full>(rq, static_cast<const T*>(c.rq) + at * head_dim, head_dim, taps, head_dim, depth, T(1));
        if (c.rb) memcpy(rb, static_cast<const T*>(c.rb) + at, taps * sizeof(T));
    }

    // The rows of the band that have row `y` of the map as a neighbor, and the row of the kernel of each.
    struct Meeting {
        int64_t y;
        int first, last;  // rows of the band, `last` excluded
        int64_t kernel_row[BAND];
    };
    INLINE int64_t num_meetings() const { return rows + BAND - 1; }
    INLINE Meeting meet_keys(int64_t y0, int64_t m, int64_t count) const {  // band of queries
        Meeting meeting{y0 + (m - rows / 2) * down, 0, 0, {}};
        return limit(meeting, count, [&](int r) { return m - r; });
    }
    INLINE Meeting meet_queries(int64_t y0, int64_t m, int64_t count) const {  // band of keys
        Meeting meeting{y0 + (m - rows / 2) * down, 0, 0, {}};
        return limit(meeting, count, [&](int r) { return r + rows - 1 - m; });
    }
    template <class F>
    INLINE Meeting limit(Meeting meeting, int64_t count, F kernel_row) const {
        bool any = false;
        for (int r = 0; r < count; r++) {
            const int64_t row = kernel_row(r);
            meeting.kernel_row[r] = row;
            if (row < 0 || row >= rows) continue;
            if (!any) meeting.first = r;
            meeting.last = r + 1, any = true;
        }
        return meeting;
    }
    INLINE bool is_inside(int64_t y) const { return y >= 0 && y < height; }

    // into[r][o] += (a_r with table_o)·b_{i+o} for the taps that reach the map.
    template <class S, Table TABLE>
    OUTLINE void dot(T* into, const Plane<T>& a, bool a_is_zero, const Plane<T>& b, int64_t x, int64_t y0,
                     int64_t count, const T* table) {
        for (int64_t m = 0; m < num_meetings(); m++) {
            const Meeting meeting = meet_keys(y0, m, count);
            if (!is_inside(meeting.y)) continue;
            T* out[BAND] = {};
            const T *left[BAND] = {}, *tables[BAND] = {};
            const int n = meeting.last - meeting.first;
            UNROLL
            for (int i = 0; i < n; i++) {
                const int r = meeting.first + i;
                const int64_t tap = meeting.kernel_row[r] * columns + first_tap;
                out[i] = into + (r * taps + tap) * S::count;
                left[i] = a.row(a_is_zero ? -1 : y0 + r * down) + x;
                tables[i] = TABLE != ABSENT ? table + tap * depth : nullptr;
            }
            const T* right = b.row(meeting.y) + x - halo;
            if (n == 3)
                dot_taps<S, 3, TABLE>(out, left, a.stride, right, b.stride, across, tables, depth, head_dim, num_taps);
            if (n == 2)
                dot_taps<S, 2, TABLE>(out, left, a.stride, right, b.stride, across, tables, depth, head_dim, num_taps);
            if (n == 1)
                dot_taps<S, 1, TABLE>(out, left, a.stride, right, b.stride, across, tables, depth, head_dim, num_taps);
        }
    }

    template <class S>
    OUTLINE void make_logits(int64_t x, int64_t y0, int64_t count) {
        if (c.rk) {
            const T* left[BAND];
            T* out[BAND];
            for (int r = 0; r < BAND; r++) left[r] = q.row(r < count ? y0 + r * down : -1) + x;
            for (int64_t o = 0; o < taps;) {
                for (int r = 0; r < BAND; r++) out[r] = logits + (r * taps + o) * S::count;
                constexpr int block = PARADIGMS_VECTOR_BYTES == 64 ? 7 : 4;
                if (taps - o >= block) {
                    project_block<S, BAND, block>(out, left, q.stride, rk + o * depth, depth, rb + o, head_dim),
                        o += block;
                } else {
                    project_block<S, BAND, 1>(out, left, q.stride, rk + o * depth, depth, rb + o, head_dim), o += 1;
                }
            }
        } else {
            for (int r = 0; r < BAND; r++)
                for (int64_t o = 0; o < taps; o++) store<S>(logits + (r * taps + o) * S::count, all<S>(rb[o]));
        }
        if (c.rq)
            dot<S, ADDED>(logits, q, !c.has_dot, k, x, y0, count, rq);
        else if (c.has_dot)
            dot<S, ABSENT>(logits, q, false, k, x, y0, count, nullptr);
        if (c.first_row) exclude<S>(x, y0, count);
    }

    // Minus infinity for the taps that are not counted.
    template <class S>
    INLINE void exclude(int64_t x, int64_t y0, int64_t count) {
        typedef typename S::V V;
        const V nothing = all<S>(-INFINITY);
        V position = all<S>(x);
        for (int i = 0; i < S::count; i++) position[i] += i;
        const V first = load<S>(first_key + x), last = load<S>(last_key + x);
        for (int64_t t = 0; t < columns; t++) {
            const V key = position + static_cast<T>((t - columns / 2) * across);
            const typename S::I out = (key < first) | (key > last);
            for (int r = 0; r < count; r++)
                for (int64_t s = 0; s < rows; s++) {
                    const int64_t y = y0 + r * down, seen = y + (s - rows / 2) * down;
                    T* logit = logits + (r * taps + s * columns + t) * S::count;
                    const bool counted = seen >= c.first_row[y] && seen <= c.last_row[y];
                    store<S>(logit, counted ? (out ? nothing : load<S>(logit)) : nothing);
                }
        }
    }

    // What dropout multiplies weight o of the queries (y, x...) with: 0 or 1 / keep.
    template <class S>
    INLINE typename S::V dropped(int64_t plane, int64_t y, int64_t x, int64_t o) const {
        typename S::U counter =
            (typename S::U)lane_numbers<S>() * (uint32_t)taps + (uint32_t)((y * width + x) * taps + o);
        return keep_some<S>(counter, c.seed, plane, c.keep);
    }

    // into[r][j] = Σ over taps of weights (v with table), for all channels; `reversed` gathers what keys hear.
    template <class S, Table TABLE>
    OUTLINE void mix(T* into, int64_t into_row, int64_t into_stride, const T* w, int64_t w_row, int64_t w_step,
                     bool reversed, const Plane<T>& b, bool b_is_zero, int64_t x, int64_t y0, int64_t count,
                     const T* table) {
        typedef typename S::V V;
        const int64_t sign = reversed ? -1 : 1;
        for (int64_t d = 0; d < depth; d += CHANNELS) {
            V sum[BAND][CHANNELS] = {};
            for (int64_t m = 0; m < num_meetings(); m++) {
                const Meeting meeting = reversed ? meet_queries(y0, m, count) : meet_keys(y0, m, count);
                const bool inside = is_inside(meeting.y);
                if (!inside && (reversed || TABLE != ADDED)) continue;
                const T *weight[BAND] = {}, *tables[BAND] = {};
                for (int r = meeting.first; r < meeting.last; r++) {
                    const int64_t tap = meeting.kernel_row[r] * columns + first_tap;
                    weight[r] =
                        reversed ? w + meeting.y * w_row + tap * w_step + halo + x : w + r * w_row + tap * w_step;
                    tables[r] = TABLE != ABSENT ? table + tap * depth + d : nullptr;
                }
                const T* value = b.row(inside && !b_is_zero ? meeting.y : -1) + d * b.stride + x - sign * halo;
                const int64_t step = reversed ? w_step - across : w_step;
#define PARADIGMS_ROWS(A, B)                                                                                       \
    if (meeting.first == A && meeting.last == B)                                                                   \
        mix_rows<S, A, B, TABLE>(sum, weight, step, value, b.stride, sign * across, tables, depth, num_taps);
                PARADIGMS_ROWS(0, 3)
                PARADIGMS_ROWS(0, 2)
                PARADIGMS_ROWS(1, 3)
                PARADIGMS_ROWS(0, 1)
                PARADIGMS_ROWS(1, 2)
                PARADIGMS_ROWS(2, 3)
#undef PARADIGMS_ROWS
            }
            if constexpr (TABLE == ADDED)
                if (!reversed && num_taps < columns) add_unseen<S>(sum, w, w_row, w_step, table + d, count);
            for (int r = 0; r < count; r++) UNROLL
                for (int j = 0; j < CHANNELS; j++) store<S>(into + r * into_row + (d + j) * into_stride, sum[r][j]);
        }
    }

    // The table's part of the columns of the kernel that lie outside the map for every query.
    template <class S>
    INLINE void add_unseen(typename S::V (&sum)[BAND][CHANNELS], const T* w, int64_t w_row, int64_t w_step,
                           const T* table, int64_t count) {
        for (int64_t o = 0; o < taps; o++) {
            const int64_t t = o % columns;
            if (t >= first_tap && t < first_tap + num_taps) continue;
            for (int r = 0; r < count; r++) UNROLL
                for (int j = 0; j < CHANNELS; j++)
                    sum[r][j] += load<S>(w + r * w_row + o * w_step) * table[o * depth + j];
        }
    }

    // How many rows the band has that starts with a row; they are a dilation apart.
    INLINE int64_t band_rows(int64_t y) const {
        const int64_t left = divide_up(height - y, down);
        return left < BAND ? left : BAND;
    }

    // Calls f(first row, how many rows) for each band.
    template <class F>
    INLINE void over_bands(F f) {
        for (int64_t phase = 0; phase < down && phase < height; phase++)
            for (int64_t y = phase; y < height; y += BAND * down) f(y, band_rows(y));
    }

    void write_band(const Map& map, int64_t image, int64_t head, int64_t y0, int64_t count, T factor) {
        for (int64_t r = 0; r < count; r++)
            unpack_row<Full, T>(band + r * depth * band_stride, band_stride, map, image, head, y0 + r * down, width,
                                head_dim, depth, factor);
    }

    // Of the query (y, x): the largest logit, then the sum of the exponentials.
    INLINE T* normalizer_of(int64_t image, int64_t head, int64_t y, int64_t x) const {
        return static_cast<T*>(c.normalizer) + (((image * height + y) * width + x) * c.heads + head) * 2;
    }

    // Item: one head of one image; images go fastest, so that threads do not write to one line of the cache.
    void run(int64_t item) {
        const int64_t image = item % c.batch, head = item / c.batch;
        if (task == FORWARD) run_forward(image, head);
        if (task == BACKWARD) run_backward(image, head);
        if (task == DOT) run_dot(image, head);
        if (task == MIX) run_mix(image, head);
        if (task == REVERSE) run_reverse(image, head);
        if (task == CORRELATE) run_correlate(image, head);
    }

    void load_filters(int64_t image, int64_t head) {
        const T* from = static_cast<const T*>(c.filters.data) + image * c.filters.batch + head * c.filters.head;
        load_table<Full>(filters, from, c.filters.row, taps, head_dim, depth, T(1));
    }

    void run_dot(int64_t image, int64_t head) {
        pack<Full, T>(q, c.q, image, head, width, head_dim, 1);
        pack<Full, T>(v, c.v, image, head, width, head_dim, 1);
        if (c.filters.data) load_filters(image, head);
        over_bands([&](int64_t y0, int64_t count) {
            over_columns([&](auto lanes, int64_t x) {
                typedef decltype(lanes) S;
                memset(logits, 0, BAND * taps * S::count * sizeof(T));
                if (c.filters.data)
                    this->dot<S, MULTIPLIED>(logits, q, false, v, x, y0, count, filters);
                else
                    this->dot<S, ABSENT>(logits, q, false, v, x, y0, count, nullptr);
                for (int64_t r = 0; r < count; r++)
                    for (int64_t o = 0; o < taps; o++)
                        store<S>(weights.row(y0 + r * down) + o * weights.stride + x,
                                 load<S>(logits + (r * taps + o) * S::count));
            });
        });
        for (int64_t y = 0; y < height; y++)
            unpack_row<Full, T>(weights.row(y), weights.stride, c.taps, image, head, y, width, taps, taps, 1);
    }

    void run_mix(int64_t image, int64_t head) {
        pack<Full, T>(weights, c.taps, image, head, width, taps, 1);
        pack<Full, T>(v, c.v, image, head, width, head_dim, 1);
        if (c.filters.data) load_filters(image, head);
        const int64_t row = taps * weights.stride;
        over_bands([&](int64_t y0, int64_t count) {
            over_columns([&](auto lanes, int64_t x) {
                typedef decltype(lanes) S;
                const T* w = weights.row(y0) + x;
                if (c.filters.data)
                    this->mix<S, MULTIPLIED>(band + x, depth * band_stride, band_stride, w, down * row, weights.stride,
                                             false, v, false, x, y0, count, filters);
                else
                    this->mix<S, ABSENT>(band + x, depth * band_stride, band_stride, w, down * row, weights.stride,
                                         false, v, false, x, y0, count, nullptr);
            });
            write_band(c.out, image, head, y0, count, 1);
        });
    }

    void run_reverse(int64_t image, int64_t head) {
        pack<Full, T>(weights, c.taps, image, head, width, taps, 1);
        for (int64_t y = 0; y < height; y++) {
            for (int64_t o = 0; o < taps; o++) {
                const int64_t t = o % columns, seen = y + (o / columns - rows / 2) * down;
                T* to = dlogits.row(y) + o * dlogits.stride;
                const bool reached = is_inside(seen) && t >= first_tap && t < first_tap + num_taps;
                if (reached)
                    memcpy(to, weights.row(seen) + (taps - 1 - o) * weights.stride + (t - columns / 2) * across,
                           width * sizeof(T));
                else
                    memset(to, 0, width * sizeof(T));
            }
            unpack_row<Full, T>(dlogits.row(y), dlogits.stride, c.out, image, head, y, width, taps, taps, 1);
        }
    }

    void run_correlate(int64_t image, int64_t head) {
        pack<Full, T>(weights, c.taps, image, head, width, taps, 1);
        pack<Full, T>(q, c.q, image, head, width, head_dim, 1);
        pack<Full, T>(v, c.v, image, head, width, head_dim, 1);
        memset(dfilters, 0, taps * depth * L * sizeof(T));
        for (int64_t s = 0; s < rows; s++) {
            const int64_t move = (s - rows / 2) * down;
            const int64_t first = move < 0 ? -move : 0, last = move < 0 ? height : height - move;
            if (first < last) correlate_row(s, first, move, last - first);
        }
        const int64_t at = (image * c.heads + head) * taps * head_dim;
        write_sums<Full, T>(static_cast<T*>(c.dfilters) + at, dfilters, taps, head_dim, depth, 1);
    }

    // dfilters[o] += Σ weights a b_{i+o} for the taps of one row of the kernel, over `count` rows of queries from `y`.
    INLINE void correlate_row(int64_t kernel_row, int64_t y, int64_t move, int64_t count) {
        const int64_t step = depth * L, w_row = taps * weights.stride, row = depth * v.stride;
        for (int64_t t = 0; t < num_taps;) {
            const int64_t block = num_taps - t < 4 ? num_taps - t : 4, tap = kernel_row * columns + first_tap + t;
            for (int64_t d = 0; d < depth; d += 4) {
                T* into = dfilters + tap * step + d * L;
                const T* w = weights.row(y) + tap * weights.stride;
                const T *a = q.row(y) + d * q.stride, *b = v.row(y + move) + d * v.stride + t * across - halo;
                auto run = [&](auto lanes, int64_t x, int64_t extent) {
                    typedef decltype(lanes) S;
#define PARADIGMS_TAPS(N)                                                                                              \
    if (block == N)                                                                                                    \
        correlate_block<S, N>(into, L, step, w + x, weights.stride, w_row, a + x, b + x, across, v.stride, row, count, extent);
                    PARADIGMS_TAPS(4)
                    PARADIGMS_TAPS(3)
                    PARADIGMS_TAPS(2)
                    PARADIGMS_TAPS(1)
#undef PARADIGMS_TAPS
                };
                over_width(run);
            }
            t += block;
        }
    }

    void run_forward(int64_t image, int64_t head) {
        load_plane(image, head);
        over_bands([&](int64_t y0, int64_t count) {
            over_columns([&](auto lanes, int64_t x) {
                this->forward_block<decltype(lanes)>(image, head, x, y0, count);
            });
            write_band(c.out, image, head, y0, count, 1);
        });
    }

    template <class S>
    OUTLINE void forward_block(int64_t image, int64_t head, int64_t x, int64_t y0, int64_t count) {
        typedef typename S::V V;
        make_logits<S>(x, y0, count);
        V inverse[BAND];
        for (int r = 0; r < count; r++) {
            T* logit = logits + r * taps * S::count;
            V top = load<S>(logit);
            for (int64_t o = 1; o < taps; o++) top = larger<S>(top, load<S>(logit + o * S::count));
            V total = {};
            for (int64_t o = 0; o < taps; o++) {
                V weight = exponential<S>(load<S>(logit + o * S::count) - top);
                total += weight;
                if (c.keep < 1) weight *= dropped<S>(image * c.heads + head, y0 + r * down, x, o);
                store<S>(logit + o * S::count, weight);
            }
            inverse[r] = 1 / total;
            for (int i = 0; i < S::count && x + i < width; i++) {
                T* to = normalizer_of(image, head, y0 + r * down, x + i);
                to[0] = top[i], to[1] = total[i];
            }
        }
        mix<S, ABSENT>(band + x, depth * band_stride, band_stride, logits, taps * S::count, S::count, false, v, false,
                       x, y0, count, nullptr);
        for (int r = 0; r < count; r++)
            for (int64_t d = 0; d < depth; d++) {
                T* value = band + (r * depth + d) * band_stride + x;
                store<S>(value, load<S>(value) * inverse[r]);
            }
    }

    void run_backward(int64_t image, int64_t head) {
        load_plane(image, head);
        memset(drb, 0, taps * L * sizeof(T));
        over_bands([&](int64_t y0, int64_t count) { queries_band(image, head, y0, count); });
        over_bands([&](int64_t y0, int64_t count) { keys_band(image, head, y0, count); });
        write_tables(image, head);
    }

    void queries_band(int64_t image, int64_t head, int64_t y0, int64_t count) {
        over_columns([&](auto lanes, int64_t x) {
            this->backward_of_queries<decltype(lanes)>(image, head, x, y0, count);
        });
        if (c.dq.data) write_band(c.dq, image, head, y0, count, c.has_dot ? c.scale : 1);
    }

    void keys_band(int64_t image, int64_t head, int64_t y0, int64_t count) {
        if (c.dk.data) {
            over_columns([&](auto lanes, int64_t x) { this->backward_of_keys<decltype(lanes)>(x, y0, count); });
            write_band(c.dk, image, head, y0, count, 1);
        }
        over_columns([&](auto lanes, int64_t x) {
            this->mix<decltype(lanes), ABSENT>(band + x, depth * band_stride, band_stride, weights.row(0),
                                               taps * weights.stride, weights.stride, true, grad, false, x, y0, count,
                                               nullptr);
        });
        write_band(c.dv, image, head, y0, count, 1);
    }

    template <class S>
    OUTLINE void backward_of_queries(int64_t image, int64_t head, int64_t x, int64_t y0, int64_t count) {
        typedef typename S::V V;
        make_logits<S>(x, y0, count);
        memset(dweights, 0, BAND * taps * S::count * sizeof(T));
        dot<S, ABSENT>(dweights, grad, false, v, x, y0, count, nullptr);
        for (int r = 0; r < count; r++) {
            const int64_t y = y0 + r * down;
            T *weight = logits + r * taps * S::count, *dweight = dweights + r * taps * S::count;
            V top = all<S>(INFINITY), total = top;  // columns outside the map weigh nothing
            for (int i = 0; i < S::count && x + i < width; i++) {
                const T* from = normalizer_of(image, head, y, x + i);
                top[i] = from[0], total[i] = from[1];
            }
            const V inverse = 1 / total;
            V delta = {};
            for (int64_t o = 0; o < taps; o++) {
                const V p = exponential<S>(load<S>(weight + o * S::count) - top) * inverse;
                V shown = p;
                if (c.keep < 1) {
                    const V factor = dropped<S>(image * c.heads + head, y, x, o);
                    shown *= factor;
                    store<S>(dweight + o * S::count, load<S>(dweight + o * S::count) * factor);
                }
                delta += p * load<S>(dweight + o * S::count);
                store<S>(weight + o * S::count, p);
                store<S>(weights.row(y) + o * weights.stride + x, shown);
            }
            for (int64_t o = 0; o < taps; o++) {
                const V gradient = load<S>(weight + o * S::count) * (load<S>(dweight + o * S::count) - delta);
                store<S>(weight + o * S::count, gradient);
                store<S>(dlogits.row(y) + o * dlogits.stride + x, gradient);
                if (c.drb) store<S>(drb + o * L, load<S>(drb + o * L) + gradient);
            }
        }
        if (!c.dq.data) return;
        if (c.rk)
            mix<S, ADDED>(band + x, depth * band_stride, band_stride, logits, taps * S::count, S::count, false, k,
                          !c.has_dot, x, y0, count, rk);
        else
            mix<S, ABSENT>(band + x, depth * band_stride, band_stride, logits, taps * S::count, S::count, false, k,
                           false, x, y0, count, nullptr);
    }

    template <class S>
    OUTLINE void backward_of_keys(int64_t x, int64_t y0, int64_t count) {
        const int64_t row = taps * dlogits.stride;
        if (c.rq)
            mix<S, ADDED>(band + x, depth * band_stride, band_stride, dlogits.row(0), row, dlogits.stride, true, q,
                          !c.has_dot, x, y0, count, rq);
        else
            mix<S, ABSENT>(band + x, depth * band_stride, band_stride, dlogits.row(0), row, dlogits.stride, true, q,
                           false, x, y0, count, nullptr);
    }

    // sums[o] += Σ dlogits a over `count` rows of `a` from `y`, for n consecutive taps from `tap`; `fresh` sums count
    // from zero.
    INLINE void outer(T* sums, int64_t tap, int64_t n, const T* w, int64_t w_step, const Plane<T>& a, int64_t y,
                      int64_t count, bool fresh) {
        const int64_t step = depth * L, w_row = taps * dlogits.stride, a_row = a.channels * a.stride;
        for (int64_t t = 0; t < n;) {
            const int64_t block = n - t < 4 ? n - t : 4;
            for (int64_t d = 0; d < depth; d += 4) {
                T* into = sums + (tap + t) * step + d * L;
                const T* from = a.row(y) + d * a.stride;
                auto run = [&](auto lanes, int64_t x, int64_t extent) {
                    typedef decltype(lanes) S;
                    const T* left = w + t * w_step + x;
                    const T* right = from + x;
                    const bool start = fresh && x == 0;
#define PARADIGMS_TAPS(N)                                                                                              \
    if (block == N)                                                                                                    \
        outer_block<S, N>(into, L, step, left, w_step, w_row, right, a.stride, a_row, count, extent, start);
                    PARADIGMS_TAPS(4)
                    PARADIGMS_TAPS(3)
                    PARADIGMS_TAPS(2)
                    PARADIGMS_TAPS(1)
#undef PARADIGMS_TAPS
                };
                over_width(run);
            }
            t += block;
        }
    }

    void write_tables(int64_t image, int64_t head) {
        const int64_t slab = vectors > L ? 8 : 32;  // rows whose logits' gradients stay in the cache
        for (int64_t y = 0; y < height; y += slab) {
            const int64_t stop = y + slab < height ? y + slab : height;
            if (c.drk) outer(drk, 0, taps, dlogits.row(y), dlogits.stride, q, y, stop - y, y == 0);
            if (c.drq)
                for (int64_t s = 0; s < rows; s++) {
                    const int64_t move = (s - rows / 2) * down;  // the key stands so far below the query
                    const int64_t first = y - move > 0 ? y : move, last = stop - move < height ? stop : height + move;
                    if (first >= last) continue;
                    const int64_t tap = s * columns + first_tap;
                    const T* w = dlogits.row(first - move) + tap * dlogits.stride + halo;
                    const bool fresh = first == (move > 0 ? move : 0);
                    outer(drq, tap, num_taps, w, dlogits.stride - across, k, first, last - first, fresh);
                }
        }
        const T scale = c.has_dot ? c.scale : 1;
        const int64_t at = (image * c.heads + head) * taps;
        if (c.drk) write_sums<Full, T>(static_cast<T*>(c.drk) + at * head_dim, drk, taps, head_dim, depth, 1 / scale);
        if (c.drq) write_sums<Full, T>(static_cast<T*>(c.drq) + at * head_dim, drq, taps, head_dim, depth, 1);
        if (c.drb) write_sums<Full, T>(static_cast<T*>(c.drb) + at, drb, taps, 1, 1, 1);
    }
};

}  // namespace PARADIGMS_ISA
