// Threads and their memory for one call. Items are independent and each is computed by one thread, so that no number
// depends on how many threads there are.
#pragma once

#include <stddef.h>
#include <stdint.h>

struct Queue;

// The next item that nobody has taken; -1 when there is none.
extern "C" int64_t paradigms_next_item(Queue* queue);

// Memory for one thread's work, see arena.h; null where there is none.
struct Arena;
extern "C" Arena* paradigms_open_arena(void);
extern "C" void* paradigms_allocate(Arena* arena, size_t bytes);
extern "C" void paradigms_close_arena(Arena* arena);

// Calls `work` on every thread; each takes items until there are none.
extern "C" void paradigms_run(int64_t num_items, int64_t num_threads, void (*work)(void* context, Queue* queue),
                              void* context);
