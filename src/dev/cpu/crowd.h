/* crowd.h: what the compute threads do while other programs want their cores.
 *
 * A thread that loses its core in the middle of a piece holds up all the others, for several milliseconds each time. So, while that
 * happens: (1) the threads are bound to one core each, since the system likes to leave two of them on one core and the other program
 * alone on the next; (2) a worker that shares its core gives it up between two pieces, before its time slice ends; (3) the calling
 * thread, without which no job begins, changes places with a worker when it is the one that shares. What is left is the sum
 * of what the threads get. Nothing of this is done when there are more or fewer cores than threads, and all is undone when the others are gone. */
#ifndef MINISGL_DEV_CPU_CROWD_H
#define MINISGL_DEV_CPU_CROWD_H
#include <stdbool.h>
#include <stdint.h>

struct crowd;

/* For n_threads threads, of which 0 is the caller of the jobs. */
struct crowd *crowd_new(int32_t n_threads);
void crowd_free(struct crowd *c);

/* By thread t: once, before anything else; at the start and at the end of its part of a job; how long it slept. */
void crowd_join(struct crowd *c, int32_t t);
void crowd_begin(struct crowd *c, int32_t t);
void crowd_end(struct crowd *c, int32_t t);
void crowd_slept(struct crowd *c, int32_t t, uint64_t ns);
/* Between two pieces: is it time to give up the core (then nobody may wait for what t has done)? And do it. */
bool crowd_tired(struct crowd *c, int32_t t);
void crowd_nap(struct crowd *c, int32_t t);

/* By the caller between jobs: bind, change places, unbind. */
void crowd_arrange(struct crowd *c);
/* The threads are bound: a core on which the caller slept would draw the other program there. */
bool crowd_here(const struct crowd *c);

#endif
