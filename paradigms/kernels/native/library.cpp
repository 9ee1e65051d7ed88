// What is one for all instruction sets: threads, and what the library says about itself.
#include "parallel.h"

#include <atomic>
#include <thread>
#include <vector>

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
    std::vector<std::thread> others;
    for (int64_t i = 1; i < num_threads && i < num_items; i++) {
        try {
            others.emplace_back(work, context, &queue);
        } catch (...) {
            break;  // the system has no thread to give: those that run take the items
        }
    }
    work(context, &queue);
    for (std::thread& other : others) other.join();
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
