// What is one for all instruction sets: threads, and what the library says about itself.
#include "parallel.h"

#include <atomic>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "arena.h"
#include "case.h"

struct Queue {
    std::atomic<int64_t> next{0};
    int64_t num_items = 0;
};

extern "C" int64_t paradigms_next_item(Queue* queue) {
    const int64_t item = queue->next.fetch_add(1);
    return item < queue->num_items ? item : -1;
}

extern "C" void paradigms_run(int64_t num_items, int64_t num_threads, void (*work)(void*, Queue*), void* context) {
    Queue queue;
    queue.num_items = num_items;
    const int64_t wanted = num_threads < num_items ? num_threads : num_items;
#if defined(_OPENMP)
    // torch's own threads: after their work they spin for a while, and others would have to share the cores with them.
#pragma omp parallel num_threads(wanted) if (wanted > 1)
    work(context, &queue);
#else
    std::vector<std::thread> others;
    for (int64_t i = 1; i < wanted; i++) {
        try {
            others.emplace_back(work, context, &queue);
        } catch (...) {
            break;  // the system has no thread to give: those that run take the items
        }
    }
    work(context, &queue);
    for (std::thread& other : others) other.join();
#endif
}

static std::mutex free_arenas_lock;
static Arena* free_arenas = nullptr;

extern "C" Arena* paradigms_open_arena(void) {
    const std::lock_guard<std::mutex> lock(free_arenas_lock);
    if (!free_arenas) return new (std::nothrow) Arena;
    Arena* const arena = free_arenas;
    free_arenas = arena->next;
    return arena;
}

extern "C" void* paradigms_allocate(Arena* arena, size_t bytes) { return arena->allocate(bytes); }

extern "C" void paradigms_close_arena(Arena* arena) {
    arena->clear();
    const std::lock_guard<std::mutex> lock(free_arenas_lock);
    arena->next = free_arenas, free_arenas = arena;
}

#define EXPORT extern "C" __attribute__((visibility("default")))

// What the machine can run: 2 for AVX-512, 1 for AVX2, 0 for everything else.
EXPORT int32_t paradigms_best_instruction_set(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw"))
        return 2;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 1;
#endif
    return 0;
}

// Of which sources it was made, so that nobody calls a library older than they are.
EXPORT const char* paradigms_sources(void) { return PARADIGMS_SOURCES; }

// Where the compiler has put a field of a structure of case.h, in bytes; of a structure itself where there is no field.
struct Place {
    const char *structure, *field;
    int64_t offset, size;
};

// Every structure and field, by which Python checks its mirrors; the last place names nothing.
EXPORT const Place* paradigms_places(void) {
#define STRUCTURE(S) {#S, nullptr, 0, sizeof(S)}
#define FIELD(S, name) {#S, #name, offsetof(S, name), sizeof(S::name)}
#define MAP(name) FIELD(Map, name)
#define SLIDING(name) FIELD(SlidingCase, name)
#define WINDOW(name) FIELD(WindowCase, name)
    // clang-format off
    static const Place places[] = {
        STRUCTURE(Map), MAP(data), MAP(batch), MAP(row), MAP(column), MAP(head),
        STRUCTURE(SlidingCase), SLIDING(batch), SLIDING(height), SLIDING(width), SLIDING(heads), SLIDING(head_dim),
        SLIDING(kernel), SLIDING(dilation), SLIDING(window), SLIDING(threads), SLIDING(has_dot), SLIDING(scale),
        SLIDING(keep), SLIDING(seed), SLIDING(first_row), SLIDING(last_row), SLIDING(first_column),
        SLIDING(last_column), SLIDING(row_base), SLIDING(column_base), SLIDING(rk), SLIDING(rq), SLIDING(rb),
        SLIDING(q), SLIDING(k), SLIDING(v), SLIDING(grad), SLIDING(taps), SLIDING(out), SLIDING(dq), SLIDING(dk),
        SLIDING(dv), SLIDING(filters), SLIDING(normalizer), SLIDING(drk), SLIDING(drq), SLIDING(drb),
        SLIDING(dfilters),
        STRUCTURE(WindowCase), WINDOW(batch), WINDOW(height), WINDOW(width), WINDOW(heads), WINDOW(head_dim),
        WINDOW(window), WINDOW(count), WINDOW(threads), WINDOW(group), WINDOW(has_dot), WINDOW(scale), WINDOW(keep),
        WINDOW(seed), WINDOW(row_at), WINDOW(column_at), WINDOW(row_region), WINDOW(column_region), WINDOW(rk),
        WINDOW(rq), WINDOW(rb), WINDOW(outside_k), WINDOW(outside_v), WINDOW(q), WINDOW(k), WINDOW(v), WINDOW(grad),
        WINDOW(taps), WINDOW(out), WINDOW(dq), WINDOW(dk), WINDOW(dv), WINDOW(filters), WINDOW(normalizer),
        WINDOW(drk), WINDOW(drq), WINDOW(drb), WINDOW(doutside_k), WINDOW(doutside_v), WINDOW(dfilters),
        {nullptr, nullptr, 0, 0}
    };
    // clang-format on
    return places;
}
