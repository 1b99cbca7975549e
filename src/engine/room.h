/* room.h: how the memory of each rank is divided, from one count before anything is loaded: weights, buffers, and KV pages for the rest. A
 * model that does not fit is refused with what is needed, what is there, and which options would make it fit, each of them tried. */
#ifndef MINISGL_ENGINE_ROOM_H
#define MINISGL_ENGINE_ROOM_H
#include "engine/fit.h"

struct room_args {
    struct fit_args fit;  /* max_len: the longest sequence wished for; limits for `prefill` and `max_running` */
    int32_t prefill, max_running; /* what limits were made for: prompt tokens and sequences of one step */
    int64_t num_pages;    /* -1: as many as fit and can be used */
    size_t memory;        /* free bytes that one rank finds */
    double ratio;         /* share of it that may be taken */
    int32_t sharers;      /* ranks that find the same memory; more than 1: further ranks do not help */
    bool host;            /* the memory is the machine's own: the same */
};

struct room {
    int32_t n_pages, max_len; /* max_len: shorter than wished where the pages hold no more */
    struct fit fit;           /* bytes of a rank; kv is for n_pages */
};

size_t room_budget(const struct room_args *a); /* bytes that a rank may take */
int room_plan(struct room *r, const struct room_args *a, struct err *e);

#endif
