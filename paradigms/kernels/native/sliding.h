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
    const int64_t height, width, head_dim, depth, centre, rows, columns, taps, offsets, down, across;
    const Task task;
    int64_t first_tap, num_taps, halo, vectors;  // of the columns of the kernel that can reach the map
    Plane<T> q, k, v, grad, weights, dlogits, dq, dk;
    T *rk = nullptr, *rq = nullptr, *rb = nullptr;              // one head's tables, channels filled up to `depth`
    T* filters = nullptr;                                       // likewise
    T *logits = nullptr, *dweights = nullptr, *band = nullptr;  // of three rows of queries and one vector
    T *drk = nullptr, *drq = nullptr, *drb = nullptr;           // sums, a vector each; zeros where nothing is added
    T* dfilters = nullptr;                                      // likewise
    T *first_key = nullptr, *last_key = nullptr;
    T* wide = nullptr;  // a vector of queries with a number for each tap of the kernel
    T* own = nullptr;   // (columns of the kernel, columns of queries): all bits set where the tap is the query's
    int64_t band_stride, own_stride = 0;

    // The columns of the kernel that a vector meets.
    struct Reach {
        int64_t first, count;  // that some query has and that can reach the map
        int64_t start, stop;   // that some query has
        bool mixed;            // whether not every query has all of them
    };
    Reach *of_queries = nullptr, *of_keys = nullptr;  // a vector each

    Sliding(const SlidingCase& of, Task asked, Arena* memory)
        : c(of), arena(memory), height(of.height), width(of.width), head_dim(of.head_dim),
          depth(round_up(of.head_dim, CHANNELS)), centre(of.kernel[0] / 2), rows(of.window[0]), columns(of.kernel[1]),
          taps(of.window[0] * of.kernel[1]), offsets(of.kernel[0] * of.kernel[1]), down(of.dilation[0]),
          across(of.dilation[1]), task(asked) {
        const int64_t centre = columns / 2, reach = (width - 1) / across;
        const int64_t usable = reach < centre ? reach : centre;
        first_tap = centre - usable, num_taps = 2 * usable + 1, halo = usable * across;
        vectors = round_up(width, L);
        band_stride = vectors;
    }

    bool create() {
        const bool attends = task == FORWARD || task == BACKWARD;
        const bool has_tables = attends || task == LOGITS || task == LOGITS_BACKWARD;
        bool enough =
            (band = allocate<T>(arena, BAND * depth * band_stride)) && (logits = allocate<T>(arena, BAND * taps * L));
        if (attends || !(task == REVERSE || has_tables))
            enough = enough && v.create(arena, height, depth, vectors, halo);
        if (has_tables || task == DOT || task == CORRELATE)
            enough = enough && q.create(arena, height, depth, vectors, halo);
        if (has_tables)
            enough = enough && k.create(arena, height, depth, vectors, halo) &&
                     (rk = allocate<T>(arena, offsets * depth)) && (rq = allocate<T>(arena, offsets * depth)) &&
                     (rb = allocate<T>(arena, offsets));
        if (attends)
            enough = enough && (first_key = allocate<T>(arena, vectors)) && (last_key = allocate<T>(arena, vectors));
        if (c.filters.data) enough = enough && (filters = allocate<T>(arena, offsets * depth));
        if (task == CORRELATE) enough = enough && (dfilters = allocate<T>(arena, offsets * depth * L));
        if (task != FORWARD) enough = enough && weights.create(arena, height, taps, vectors, halo);
        if (c.column_base) {
            own_stride = round_up(2 * halo + vectors, L);
            enough =
                enough && (wide = allocate<T>(arena, taps * L)) && (own = allocate<T>(arena, columns * own_stride)) &&
                (of_queries = allocate<Reach>(arena, vectors / L)) && (of_keys = allocate<Reach>(arena, vectors / L));
            if (enough) find_own();
        }
        if (task == BACKWARD || task == REVERSE) enough = enough && dlogits.create(arena, height, taps, vectors, halo);
        if (task == LOGITS_BACKWARD) {
            enough =
                enough && dq.create(arena, height, depth, vectors, 0) && dk.create(arena, height, depth, vectors, 0);
            dlogits = weights;
        }
        if (task == BACKWARD)
            enough = enough && grad.create(arena, height, depth, vectors, halo) &&
                     (dweights = allocate<T>(arena, BAND * taps * L));
        if (task == BACKWARD || task == LOGITS_BACKWARD)
            enough = enough && (drk = allocate<T>(arena, offsets * depth * L)) &&
                     (drq = allocate<T>(arena, offsets * depth * L)) && (drb = allocate<T>(arena, offsets * L));
        if (enough && attends && c.first_column)
            for (int64_t x = 0; x < vectors; x++) {
                first_key[x] = x < width ? c.first_column[x] : 0;
                last_key[x] = x < width ? c.last_column[x] : vectors;
            }
        return enough;
    }

    // Which columns of the kernel are whose, where they depend on the query.
    void find_own() {
        own += halo;
        for (int64_t x = 0; x < width; x++)
            for (int64_t t = 0; t < c.window[1]; t++)
                memset(own + (t + c.column_base[x]) * own_stride + x, 0xff, sizeof(T));
        for (int64_t x = 0; x < vectors; x += L) {
            of_queries[x / L] = find_reach(x, 0);
            of_keys[x / L] = find_reach(x, across);
        }
    }
    // Of the queries that stand `step` before the pixels of a vector for each column after the centre's.
    Reach find_reach(int64_t x, int64_t step) const {
        const int64_t lanes = width - x < L ? width - x : L;
        Reach reach{0, 0, columns, 0, false};
        int64_t num_own = 0;
        for (int64_t t = 0; t < columns; t++)
            for (int64_t i = 0; i < lanes; i++) {
                const int64_t query = x + i - (t - columns / 2) * step;
                if (query < 0 || query >= width || own[t * own_stride + query] == 0) continue;
                reach.start = t < reach.start ? t : reach.start, reach.stop = t + 1, num_own++;
            }
        const int64_t end = reach.stop < first_tap + num_taps ? reach.stop : first_tap + num_taps;
        reach.first = reach.start < first_tap ? first_tap : reach.start, reach.count = end - reach.first;
        reach.mixed = num_own < lanes * (reach.stop - reach.start);
        return reach;
    }
    INLINE Reach reach_of(int64_t x, bool reversed) const {
        if (!own) return {first_tap, num_taps, 0, columns, false};
        return reversed ? of_keys[x / L] : of_queries[x / L];
    }

    // Calls f for each tap that a query of a vector has.
    template <class F>
    INLINE void over_taps(const Reach& reach, F f) const {
        for (int64_t s = 0; s < rows; s++)
            for (int64_t t = reach.start; t < reach.stop; t++) f(s * columns + t);
    }

    // Zeros in the place of what is not of a query's own taps.
    template <class S>
    OUTLINE void clear_foreign(T* numbers, const Reach& reach, int64_t x) const {
        over_taps(reach, [&](int64_t o) {
            T* to = numbers + o * S::count;
            store<S>(to, choose<S>(load<S>(to), load<S>(own + o % columns * own_stride + x)));
        });
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
    INLINE void over_width(int64_t first, int64_t stop, F f) {
        const int64_t whole = (stop - first) / L * L, rest = stop - first - whole;
        if (rest > Half::count) return f(Full{}, first, stop - first);
        if (whole) f(Full{}, first, whole);
        if (rest) f(Half{}, first + whole, rest);
    }

    void load_plane(int64_t image, int64_t head) {
        load_maps(image, head);
        load_tables(head);
    }
    void load_maps(int64_t image, int64_t head) {
        const T scale = c.has_dot ? c.scale : 1;
        if (c.q.data) pack<Full, T>(q, c.q, image, head, width, head_dim, scale);
        if (c.k.data) pack<Full, T>(k, c.k, image, head, width, head_dim, 1);
        if (c.v.data) pack<Full, T>(v, c.v, image, head, width, head_dim, 1);
        if (task == BACKWARD) pack<Full, T>(grad, c.grad, image, head, width, head_dim, 1);
    }
    void load_tables(int64_t head) {
        const T scale = c.has_dot ? c.scale : 1;
        const int64_t at = head * offsets;
        if (c.rk)
            load_table<Full>(rk, static_cast<const T*>(c.rk) + at * head_dim, head_dim, offsets, head_dim, depth,
                             scale);
        if (c.rq)
            load_table<Full>(rq, static_cast<const T*>(c.rq) + at * head_dim, head_dim, offsets, head_dim, depth, T(1));
        if (c.rb) memcpy(rb, static_cast<const T*>(c.rb) + at, offsets * sizeof(T));
    }

    // The offset of the first row of taps of the queries in a row; tap o of theirs is entry o + base * columns of a
    // table.
    INLINE int64_t base_of(int64_t y) const { return c.row_base ? c.row_base[y] : 0; }

    // Rows from `y` on, before `limit`, that have one base: the first row after them.
    INLINE int64_t end_of_base(int64_t y, int64_t limit) const {
        int64_t stop = y + 1;
        if (!c.row_base) return limit;
        while (stop < limit && c.row_base[stop] == c.row_base[y]) stop++;
        return stop;
    }

    // The rows of the band that have row `y` of the map as a neighbor, and the row of taps of each.
    struct Meeting {
        int64_t y;
        int first, last;  // rows of the band, `last` excluded
        int64_t kernel_row[BAND];
    };
    INLINE int64_t num_keys(int64_t y0, int64_t count) const {  // rows that a band of queries sees
        return rows + count - 1 + base_of(y0 + (count - 1) * down) - base_of(y0);
    }
    INLINE int64_t num_queries() const { return 2 * centre + BAND; }  // rows that may see a band of keys
    INLINE Meeting meet_keys(int64_t y0, int64_t m, int64_t count) const {
        const int64_t base = base_of(y0);
        Meeting meeting{y0 + (m + base - centre) * down, 0, 0, {}};
        return limit(meeting, count, [&](int r) { return m - r + base - base_of(y0 + r * down); });
    }
    INLINE Meeting meet_queries(int64_t y0, int64_t m, int64_t count) const {
        Meeting meeting{y0 + (m - centre) * down, 0, 0, {}};
        if (!is_inside(meeting.y)) return meeting;
        const int64_t base = base_of(meeting.y);
        return limit(meeting, count, [&](int r) { return r + 2 * centre - m - base; });
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
        const Reach reach = reach_of(x, false);
        const int64_t edge = halo - (reach.first - first_tap) * across;  // from the first key of a query back to it
        for (int64_t m = 0, last = num_keys(y0, count); m < last; m++) {
            const Meeting meeting = meet_keys(y0, m, count);
            if (!is_inside(meeting.y)) continue;
            T* out[BAND] = {};
            const T *left[BAND] = {}, *tables[BAND] = {};
            const int n = meeting.last - meeting.first;
            UNROLL
            for (int i = 0; i < n; i++) {
                const int r = meeting.first + i;
                const int64_t tap = meeting.kernel_row[r] * columns + reach.first;
                out[i] = into + (r * taps + tap) * S::count;
                left[i] = a.row(a_is_zero ? -1 : y0 + r * down) + x;
                tables[i] = TABLE != ABSENT ? table + (tap + base_of(y0 + r * down) * columns) * depth : nullptr;
            }
            const T* right = b.row(meeting.y) + x - edge;
            if (n == 3)
                dot_taps<S, 3, TABLE>(out, left, a.stride, right, b.stride, across, tables, depth, head_dim,
                                      reach.count);
            if (n == 2)
                dot_taps<S, 2, TABLE>(out, left, a.stride, right, b.stride, across, tables, depth, head_dim,
                                      reach.count);
            if (n == 1)
                dot_taps<S, 1, TABLE>(out, left, a.stride, right, b.stride, across, tables, depth, head_dim,
                                      reach.count);
        }
    }

    // q·rk + rb for C rows of the band from `first` on, whose taps have the same entries of the tables.
    template <class S, int C>
    INLINE void project(int64_t x, int64_t y0, int64_t first, int64_t count) {
        const T* left[C];
        T* out[C];
        const int64_t entry = base_of(y0 + first * down) * columns;
        for (int r = 0; r < C; r++) left[r] = q.row(first + r < count ? y0 + (first + r) * down : -1) + x;
        for (int64_t o = 0; o < taps;) {
            for (int r = 0; r < C; r++) out[r] = logits + ((first + r) * taps + o) * S::count;
            const T *table = rk + (entry + o) * depth, *start = rb + entry + o;
            constexpr int block = PARADIGMS_VECTOR_BYTES == 64 ? 7 : 4;
            if (taps - o >= block)
                project_block<S, C, block>(out, left, q.stride, table, depth, start, head_dim), o += block;
            else
                project_block<S, C, 1>(out, left, q.stride, table, depth, start, head_dim), o += 1;
        }
    }

    template <class S>
    OUTLINE void make_logits(int64_t x, int64_t y0, int64_t count) {
        bool alike = true;
        for (int64_t r = 1; r < count; r++) alike = alike && base_of(y0 + r * down) == base_of(y0);
        if (c.rk && alike) {
            project<S, BAND>(x, y0, 0, count);
        } else if (c.rk) {
            for (int64_t r = 0; r < count; r++) project<S, 1>(x, y0, r, count);
        } else {
            for (int r = 0; r < count; r++) {
                const T* biases = rb + base_of(y0 + r * down) * columns;
                for (int64_t o = 0; o < taps; o++) store<S>(logits + (r * taps + o) * S::count, all<S>(biases[o]));
            }
        }
        if (task == LOGITS)
            dot<S, ALONE>(logits, q, true, k, x, y0, count, rq);
        else if (c.rq)
            dot<S, ADDED>(logits, q, !c.has_dot, k, x, y0, count, rq);
        else if (c.has_dot)
            dot<S, ABSENT>(logits, q, false, k, x, y0, count, nullptr);
        if (c.first_row && task != LOGITS) exclude<S>(x, y0, count);
    }

    // Minus infinity for the taps that are not counted.
    template <class S>
    INLINE void exclude(int64_t x, int64_t y0, int64_t count) {
        typedef typename S::V V;
        const V nothing = all<S>(-INFINITY);
        V position = all<S>(x);
        for (int i = 0; i < S::count; i++) position[i] += i;
        const V first = load<S>(first_key + x), last = load<S>(last_key + x);
        const Reach reach = reach_of(x, false);
        for (int64_t t = reach.start; t < reach.stop; t++) {
            const V key = position + static_cast<T>((t - columns / 2) * across);
            const typename S::I out = (key < first) | (key > last);
            for (int r = 0; r < count; r++)
                for (int64_t s = 0; s < rows; s++) {
                    const int64_t y = y0 + r * down, seen = y + (s + base_of(y) - centre) * down;
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
        const Reach reach = reach_of(x, reversed);
        const int64_t edge = halo - (reach.first - first_tap) * across, step = reversed ? w_step - across : w_step;
        const T* mask = reach.mixed ? own + reach.first * own_stride + x + (reversed ? edge : 0) : nullptr;
        const int64_t mask_step = own_stride - (reversed ? across : 0);
        for (int64_t d = 0; d < depth; d += CHANNELS) {
            V sum[BAND][CHANNELS] = {};
            for (int64_t m = 0, last = reversed ? num_queries() : num_keys(y0, count); m < last; m++) {
                const Meeting meeting = reversed ? meet_queries(y0, m, count) : meet_keys(y0, m, count);
                const bool inside = is_inside(meeting.y);
                if (!inside && (reversed || !(TABLE == ADDED || TABLE == ALONE))) continue;
                const T *weight[BAND] = {}, *tables[BAND] = {};
                const int64_t seeing = reversed ? base_of(meeting.y) : 0;
                for (int r = meeting.first; r < meeting.last; r++) {
                    const int64_t tap = meeting.kernel_row[r] * columns + reach.first;
                    weight[r] =
                        reversed ? w + meeting.y * w_row + tap * w_step + edge + x : w + r * w_row + tap * w_step;
                    const int64_t entry = tap + (reversed ? seeing : base_of(y0 + r * down)) * columns;
                    tables[r] = TABLE != ABSENT ? table + entry * depth + d : nullptr;
                }
                const T* value = b.row(inside && !b_is_zero ? meeting.y : -1) + d * b.stride + x - sign * edge;
#define PARADIGMS_ROWS(A, B)                                                                                       \
    if (meeting.first == A && meeting.last == B) {                                                                 \
        if (mask)                                                                                                  \
            mix_rows<S, A, B, TABLE, true>(sum, weight, step, value, b.stride, sign * across, tables, depth,       \
                                           reach.count, mask, mask_step);                                          \
        else                                                                                                       \
            mix_rows<S, A, B, TABLE>(sum, weight, step, value, b.stride, sign * across, tables, depth, reach.count); \
    }
                PARADIGMS_ROWS(0, 3)
                PARADIGMS_ROWS(0, 2)
                PARADIGMS_ROWS(1, 3)
                PARADIGMS_ROWS(0, 1)
                PARADIGMS_ROWS(1, 2)
                PARADIGMS_ROWS(2, 3)
#undef PARADIGMS_ROWS
            }
            if constexpr (TABLE == ADDED || TABLE == ALONE)
                if (!reversed && num_taps < columns) add_unseen<S>(sum, w, w_row, w_step, table + d, x, y0, count);
            for (int r = 0; r < count; r++) UNROLL
                for (int j = 0; j < CHANNELS; j++) store<S>(into + r * into_row + (d + j) * into_stride, sum[r][j]);
        }
    }

    // The table's part of the columns of the kernel that lie outside the map for every query.
    template <class S>
    INLINE void add_unseen(typename S::V (&sum)[BAND][CHANNELS], const T* w, int64_t w_row, int64_t w_step,
                           const T* table, int64_t x, int64_t y0, int64_t count) {
        over_taps(reach_of(x, false), [&](int64_t o) {
            const int64_t t = o % columns;
            if (t >= first_tap && t < first_tap + num_taps) return;
            for (int r = 0; r < count; r++) UNROLL
                for (int j = 0; j < CHANNELS; j++)
                    sum[r][j] +=
                        load<S>(w + r * w_row + o * w_step) * table[(o + base_of(y0 + r * down) * columns) * depth + j];
        });
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

    static int64_t count_items(const SlidingCase& of, Task task) {
        return task == LOGITS_BACKWARD ? of.batch : of.batch * of.heads;
    }

    // Item: one head of one image; images go fastest, so that threads do not write to one line of the cache. Of
    // LOGITS_BACKWARD one image.
    void run(int64_t item) {
        if (task == LOGITS_BACKWARD) return run_logits_backward(item);
        const int64_t image = item % c.batch, head = item / c.batch;
        if (task == FORWARD) run_forward(image, head);
        if (task == BACKWARD) run_backward(image, head);
        if (task == DOT) run_dot(image, head);
        if (task == MIX) run_mix(image, head);
        if (task == REVERSE) run_reverse(image, head);
        if (task == CORRELATE) run_correlate(image, head);
        if (task == SPREAD) run_spread(image, head);
        if (task == LOGITS) run_logits(image, head);
    }

    void load_filters(int64_t image, int64_t head) {
        const T* from = static_cast<const T*>(c.filters.data) + image * c.filters.batch + head * c.filters.head;
        load_table<Full>(filters, from, c.filters.row, offsets, head_dim, depth, T(1));
    }

    // Calls f(tap of the kernel, tap of the window, how many) for each row of the taps of a query.
    template <class F>
    INLINE void over_window(int64_t x, F f) const {
        for (int64_t s = 0; s < rows; s++) f(s * columns + c.column_base[x], s * c.window[1], c.window[1]);
    }
    INLINE static void copy(T* to, const T* from, int64_t n) {
        for (int64_t i = 0; i < n; i++) to[i] = from[i];
    }
    INLINE T* taps_of(int64_t image, int64_t head, int64_t y, int64_t x) const {
        const Map& map = c.taps;
        return static_cast<T*>(map.data) + image * map.batch + head * map.head + y * map.row + x * map.column;
    }

    // The weights of a head of an image, each at its offset.
    void load_weights(int64_t image, int64_t head) {
        if (!own) return pack<Full, T>(weights, c.taps, image, head, width, taps, 1);
        for (int64_t y = 0; y < height; y++)
            for (int64_t x = 0; x < width; x += L) {
                memset(wide, 0, L * taps * sizeof(T));
                for (int64_t i = 0; i < L && x + i < width; i++) {
                    T* const to = wide + i * taps;
                    const T* const from = taps_of(image, head, y, x + i);
                    over_window(x + i, [&](int64_t o, int64_t at, int64_t n) { copy(to + o, from + at, n); });
                }
                for (int64_t o = 0; o < taps; o += L) {
                    typename Full::V tile[L];
                    load_tile<Full, T>(tile, wide + o, taps, L, taps - o);
                    transpose<Full>(tile);
                    for (int64_t j = 0; j < L && o + j < taps; j++)
                        store<Full>(weights.row(y) + (o + j) * weights.stride + x, tile[j]);
                }
            }
    }

    void write_weights(int64_t image, int64_t head) {
        for (int64_t y = 0; y < height; y++) {
            if (!own) {
                unpack_row<Full, T>(weights.row(y), weights.stride, c.taps, image, head, y, width, taps, taps, 1);
                continue;
            }
            for (int64_t x = 0; x < width; x += L) {
                for (int64_t o = 0; o < taps; o += L) {
                    typename Full::V tile[L];
                    for (int64_t j = 0; j < L; j++)
                        tile[j] = o + j < taps ? load<Full>(weights.row(y) + (o + j) * weights.stride + x)
                                               : typename Full::V{};
                    transpose<Full>(tile);
                    store_tile<Full, T>(tile, wide + o, taps, L, taps - o);
                }
                for (int64_t i = 0; i < L && x + i < width; i++) {
                    const T* const from = wide + i * taps;
                    T* const to = taps_of(image, head, y, x + i);
                    over_window(x + i, [&](int64_t o, int64_t at, int64_t n) { copy(to + at, from + o, n); });
                }
            }
        }
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
                this->keep_logits<S>(x, y0, count);
            });
        });
        write_weights(image, head);
    }

    template <class S>
    INLINE void keep_logits(int64_t x, int64_t y0, int64_t count) {
        for (int64_t r = 0; r < count; r++)
            over_taps(reach_of(x, false), [&](int64_t o) {
                store<S>(weights.row(y0 + r * down) + o * weights.stride + x,
                         load<S>(logits + (r * taps + o) * S::count));
            });
    }

    void run_logits(int64_t image, int64_t head) {
        load_plane(image, head);
        over_bands([&](int64_t y0, int64_t count) {
            over_columns([&](auto lanes, int64_t x) {
                typedef decltype(lanes) S;
                this->make_logits<S>(x, y0, count);
                this->keep_logits<S>(x, y0, count);
            });
        });
        write_weights(image, head);
    }

    // All heads of an image, which share its maps: their gradients are summed in the order of the heads.
    void run_logits_backward(int64_t image) {
        load_maps(image, 0);
        for (int64_t head = 0; head < c.heads; head++) {
            load_tables(head);
            load_weights(image, head);
            clear_sums();
            over_bands([&](int64_t y0, int64_t count) {
                over_columns([&](auto lanes, int64_t x) {
                    this->backward_of_logits<decltype(lanes)>(x, y0, count, head == 0);
                });
            });
            write_tables(image, head);
        }
        for (int64_t y = 0; y < height; y++) {
            unpack_row<Full, T>(dq.row(y), dq.stride, c.dq, image, 0, y, width, head_dim, depth, 1);
            unpack_row<Full, T>(dk.row(y), dk.stride, c.dk, image, 0, y, width, head_dim, depth, 1);
        }
    }

    template <class S>
    OUTLINE void backward_of_logits(int64_t x, int64_t y0, int64_t count, bool fresh) {
        const int64_t row = taps * dlogits.stride;
        const T* w = dlogits.row(y0) + x;
        for (int64_t r = 0; r < count; r++) {
            T* biases = drb + base_of(y0 + r * down) * columns * L;
            over_taps(reach_of(x, false), [&](int64_t o) {
                const T* gradient = w + r * down * row + o * dlogits.stride;
                store<S>(biases + o * L, load<S>(biases + o * L) + load<S>(gradient));
            });
        }
        mix<S, ALONE>(band + x, depth * band_stride, band_stride, w, down * row, dlogits.stride, false, k, true, x, y0,
                      count, rk);
        add_band<S>(dq, x, y0, count, fresh);
        mix<S, ALONE>(band + x, depth * band_stride, band_stride, dlogits.row(0), row, dlogits.stride, true, q, true, x,
                      y0, count, rq);
        add_band<S>(dk, x, y0, count, fresh);
    }

    template <class S>
    INLINE void add_band(const Plane<T>& to, int64_t x, int64_t y0, int64_t count, bool fresh) const {
        for (int64_t r = 0; r < count; r++)
            for (int64_t d = 0; d < depth; d++) {
                T* const sum = to.row(y0 + r * down) + d * to.stride + x;
                const typename S::V value = load<S>(band + (r * depth + d) * band_stride + x);
                store<S>(sum, fresh ? value : load<S>(sum) + value);
            }
    }

    void run_spread(int64_t image, int64_t head) {
        load_weights(image, head);
        pack<Full, T>(v, c.v, image, head, width, head_dim, 1);
        if (c.filters.data) load_filters(image, head);
        const T* w = weights.row(0);
        const int64_t row = taps * weights.stride;
        over_bands([&](int64_t y0, int64_t count) {
            over_columns([&](auto lanes, int64_t x) {
                typedef decltype(lanes) S;
                if (c.filters.data)
                    this->mix<S, MULTIPLIED>(band + x, depth * band_stride, band_stride, w, row, weights.stride, true,
                                             v, false, x, y0, count, filters);
                else
                    this->mix<S, ABSENT>(band + x, depth * band_stride, band_stride, w, row, weights.stride, true, v,
                                         false, x, y0, count, nullptr);
            });
            write_band(c.out, image, head, y0, count, 1);
        });
    }

    void run_mix(int64_t image, int64_t head) {
        load_weights(image, head);
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
        load_weights(image, head);
        pack<Full, T>(q, c.q, image, head, width, head_dim, 1);
        pack<Full, T>(v, c.v, image, head, width, head_dim, 1);
        memset(dfilters, 0, offsets * depth * L * sizeof(T));
        for (int64_t y = 0, stop; y < height; y = stop) {
            stop = end_of_base(y, height);
            for (int64_t s = 0; s < rows; s++) {
                const int64_t move = (s + base_of(y) - centre) * down;
                const int64_t first = y + move < 0 ? -move : y, last = stop + move > height ? height - move : stop;
                if (first < last) correlate_row(s, base_of(y), first, move, last - first);
            }
        }
        const int64_t at = (image * c.heads + head) * offsets * head_dim;
        write_sums<Full, T>(static_cast<T*>(c.dfilters) + at, dfilters, offsets, head_dim, depth, 1);
    }

    // The columns of the queries that have a tap, or of the keys that are one, from the start of a vector on.
    struct Run {
        int64_t first, stop;
        INLINE bool operator==(const Run& other) const { return first == other.first && stop == other.stop; }
    };
    INLINE Run find_run(int64_t t, const Reach* reaches) const {
        if (!own) return {0, width};
        Run run{width, 0};
        for (int64_t x = 0; x < width; x += L)
            if (t >= reaches[x / L].start && t < reaches[x / L].stop) {
                run.first = x < run.first ? x : run.first;
                run.stop = x + L < width ? x + L : width;
            }
        return run;
    }

    // dfilters[o] += Σ weights a b_{i+o} for the taps of one row of the kernel, over `count` rows of queries from `y`.
    INLINE void correlate_row(int64_t kernel_row, int64_t base, int64_t y, int64_t move, int64_t count) {
        const int64_t step = depth * L, w_row = taps * weights.stride, row = depth * v.stride;
        for (int64_t t = 0; t < num_taps;) {
            const Run columns_of = find_run(first_tap + t, of_queries);
            int64_t block = 1;
            while (block < 4 && t + block < num_taps && find_run(first_tap + t + block, of_queries) == columns_of)
                block++;
            const int64_t tap = kernel_row * columns + first_tap + t;
            for (int64_t d = 0; columns_of.first < columns_of.stop && d < depth; d += 4) {
                T* into = dfilters + (tap + base * columns) * step + d * L;
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
                over_width(columns_of.first, columns_of.stop, run);
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
        const Reach reach = reach_of(x, false);
        V inverse[BAND];
        for (int r = 0; r < count; r++) {
            T* logit = logits + r * taps * S::count;
            V top = load<S>(logit + reach.start * S::count);
            over_taps(reach, [&](int64_t o) { top = larger<S>(top, load<S>(logit + o * S::count)); });
            V total = {};
            over_taps(reach, [&](int64_t o) {
                V weight = exponential<S>(load<S>(logit + o * S::count) - top);
                total += weight;
                if (c.keep < 1) weight *= dropped<S>(image * c.heads + head, y0 + r * down, x, o);
                store<S>(logit + o * S::count, weight);
            });
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
        clear_sums();
        over_bands([&](int64_t y0, int64_t count) { queries_band(image, head, y0, count); });
        over_bands([&](int64_t y0, int64_t count) { keys_band(image, head, y0, count); });
        write_tables(image, head);
    }

    void clear_sums() {
        memset(drb, 0, offsets * L * sizeof(T));
        if (c.row_base)
            memset(drk, 0, offsets * depth * L * sizeof(T)), memset(drq, 0, offsets * depth * L * sizeof(T));
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
        const Reach reach = reach_of(x, false);
        for (int r = 0; r < count; r++) {
            const int64_t y = y0 + r * down;
            T *weight = logits + r * taps * S::count, *dweight = dweights + r * taps * S::count;
            V top = all<S>(INFINITY), total = top;  // columns outside the map weigh nothing
            for (int i = 0; i < S::count && x + i < width; i++) {
                const T* from = normalizer_of(image, head, y, x + i);
                top[i] = from[0], total[i] = from[1];
            }
            const V inverse = 1 / total;
            over_taps(reach, [&](int64_t o) {
                store<S>(weight + o * S::count, exponential<S>(load<S>(weight + o * S::count) - top) * inverse);
            });
            if (reach.mixed) clear_foreign<S>(weight, reach, x), clear_foreign<S>(dweight, reach, x);
            V delta = {};
            over_taps(reach, [&](int64_t o) {
                const V p = load<S>(weight + o * S::count);
                V shown = p;
                if (c.keep < 1) {
                    const V factor = dropped<S>(image * c.heads + head, y, x, o);
                    shown *= factor;
                    store<S>(dweight + o * S::count, load<S>(dweight + o * S::count) * factor);
                }
                delta += p * load<S>(dweight + o * S::count);
                store<S>(weights.row(y) + o * weights.stride + x, shown);
            });
            T* biases = drb + base_of(y) * columns * L;
            over_taps(reach, [&](int64_t o) {
                V gradient = load<S>(weight + o * S::count) * (load<S>(dweight + o * S::count) - delta);
                if (reach.mixed) gradient = choose<S>(gradient, load<S>(own + o % columns * own_stride + x));
                store<S>(weight + o * S::count, gradient);
                store<S>(dlogits.row(y) + o * dlogits.stride + x, gradient);
                if (c.drb) store<S>(biases + o * L, load<S>(biases + o * L) + gradient);
            });
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

    // sums[o] += Σ dlogits a over `count` rows of `a` from `y`, for n consecutive entries from `entry`, the first of
    // which is of column `first` of the kernel; `reaches` is of the pixels of `a`; `fresh` sums count from zero.
    INLINE void outer(T* sums, int64_t entry, int64_t first, int64_t n, const T* w, int64_t w_step, const Plane<T>& a,
                      const Reach* reaches, int64_t y, int64_t count, bool fresh) {
        const int64_t step = depth * L, w_row = taps * dlogits.stride, a_row = a.channels * a.stride;
        for (int64_t t = 0; t < n;) {
            const Run run_of = find_run(first + t, reaches);
            int64_t block = 1;
            while (block < 4 && t + block < n && find_run(first + t + block, reaches) == run_of) block++;
            for (int64_t d = 0; run_of.first < run_of.stop && d < depth; d += 4) {
                T* into = sums + (entry + t) * step + d * L;
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
                over_width(run_of.first, run_of.stop, run);
            }
            t += block;
        }
    }

    void write_tables(int64_t image, int64_t head) {
        const int64_t slab = vectors > L ? 8 : 32;  // rows whose logits' gradients stay in the cache
        for (int64_t y = 0, stop; y < height; y = stop) {
            stop = end_of_base(y, y + slab < height ? y + slab : height);
            const int64_t entry = base_of(y) * columns;
            const int64_t alike = own ? columns : taps;  // taps that go together
            for (int64_t o = 0; c.drk && o < taps; o += alike)
                outer(drk, entry + o, 0, alike, dlogits.row(y) + o * dlogits.stride, dlogits.stride, q, of_queries, y,
                      stop - y, y == 0 && !c.row_base);
            if (c.drq)
                for (int64_t s = 0; s < rows; s++) {
                    const int64_t move = (s + base_of(y) - centre) * down;  // the key stands so far below the query
                    const int64_t first = y + move < 0 ? -move : y, last = stop + move > height ? height - move : stop;
                    if (first >= last) continue;
                    const int64_t tap = s * columns + first_tap;
                    const T* w = dlogits.row(first) + tap * dlogits.stride + halo;
                    const bool fresh = first == (move < 0 ? -move : 0) && !c.row_base;
                    outer(drq, entry + tap, first_tap, num_taps, w, dlogits.stride - across, k, of_keys, first + move,
                          last - first, fresh);
                }
        }
        const T scale = c.has_dot ? c.scale : 1;
        const int64_t at = (image * c.heads + head) * offsets;
        if (c.drk)
            write_sums<Full, T>(static_cast<T*>(c.drk) + at * head_dim, drk, offsets, head_dim, depth, 1 / scale);
        if (c.drq) write_sums<Full, T>(static_cast<T*>(c.drq) + at * head_dim, drq, offsets, head_dim, depth, 1);
        if (c.drb) write_sums<Full, T>(static_cast<T*>(c.drb) + at, drb, offsets, 1, 1, 1);
    }
};

}  // namespace PARADIGMS_ISA
