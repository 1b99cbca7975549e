/* comm.h: what ranks say to each other. One communicator a rank; every rank makes the same calls in the same order.
 * One rank needs none (NULL). The makers for several ranks come with tensor parallelism. */
#ifndef MINISGL_COMM_COMM_H
#define MINISGL_COMM_COMM_H

struct comm;

#endif
