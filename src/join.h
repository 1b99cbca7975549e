/* join.h: start-up of a run of several processes, one a host, that mpirun started: who is who, and that all run the same program with the
 * same settings. One process alone joins nothing, and every call is free. */
#ifndef MINISGL_JOIN_H
#define MINISGL_JOIN_H
#include "base/err.h"
#include "comm/hosts.h"
#include "engine/room.h"
#include "opt.h"

struct join {
    struct mpi mpi;
    struct comm_hosts *hosts; /* NULL: one process alone */
    int32_t before, here;     /* processes on this host: with lower numbers, and all */
};

/* Join the run when mpirun started this process. */
int join_open(struct join *j, const struct options *o, struct err *e);
void join_close(struct join *j);
/* A process but the first: it has ranks, and no front end or scheduler. */
bool join_follows(const struct join *j);
int32_t join_local(const struct join *j, int32_t n_ranks); /* ranks of this process */
int32_t join_first(const struct join *j);
/* Ranks on this host: those of processes with lower numbers, and all. */
int32_t join_before(const struct join *j, int32_t n_ranks);
int32_t join_here(const struct join *j, int32_t n_ranks);

/* All must have the same program, model and step sizes; pages are as many as the poorest process has. */
int join_agree(const struct join *j, const struct config *c, const struct options *o, struct room *room, struct err *e);
/* The end of start-up: all are ready. From now on the time limit is that of a step, no longer that of loading. */
int join_ready(struct join *j, const struct options *o, struct err *e);
/* Start-up fails here: say why and end all processes. Returns where there is only this one. */
void join_fail(struct join *j, const struct err *e);

#endif
