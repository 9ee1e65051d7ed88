// What is one for all instruction sets: threads, and what the library says about itself.
#include "parallel.h"

#include <atomic>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "arena.h"

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
