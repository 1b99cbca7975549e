/* touch.h: memory that will be written soon is asked of the system before it is needed.
 *
 * The KV cache and the buffers of a step are address space only until they are touched. A first touch costs 0.1 to 0.2 ms for 2 MiB,
 * and on a virtual machine whose host has to find the memory too some 5 ms, which is a tenth of a prompt's time. A thread does it
 * while the device computes nothing: at first for AHEAD tokens, and later so far ahead of the last page in use. Contents do not change. */
#ifndef MINISGL_DEV_CPU_TOUCH_H
#define MINISGL_DEV_CPU_TOUCH_H
#include <stddef.h>
#include <stdint.h>

enum { TOUCH_AHEAD_TOKENS = 8192 };

/* `parts` areas of part_bytes that follow each other, each cut into pieces that are wanted from its beginning on (the KV cache:
 * layers of pages); and n areas wanted at once (the buffers). */
struct touch_area {
    char *at;
    size_t bytes;
};
struct touch_args {
    char *parts_at;
    size_t parts, part_bytes;
    size_t ahead; /* bytes of each part beyond those in use */
    const struct touch_area *areas;
    int n_areas;
};

struct touch;

/* NULL where no thread can be had: then memory comes when it is written, as ever. */
struct touch *touch_new(const struct touch_args *a);
void touch_free(struct touch *t);

/* The device's thread: a step begins or ends; so many bytes of each part are in use. NULL is fine. */
void touch_step(struct touch *t);
void touch_used(struct touch *t, size_t bytes);

#endif
