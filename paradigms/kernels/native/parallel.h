// Threads for one call. Items are independent and each is computed by one thread, so that no number depends on how
// many threads there are.
#pragma once

#include <stdint.h>

struct Queue;

// The next item that nobody has taken; -1 when there is none.
extern "C" int64_t paradigms_next_item(Queue* queue);

// Calls `work` on every thread; each takes items until there are none.
extern "C" void paradigms_run(int64_t num_items, int64_t num_threads, void (*work)(void* context, Queue* queue),
                              void* context);
