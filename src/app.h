/* app.h: a model that is being run: everything from the checkpoint's files to the scheduler thread, opened in the
 * right order and closed in reverse. Front ends (serve, generate) put requests into app.inbox. */
#ifndef MINISGL_APP_H
#define MINISGL_APP_H
#include "base/err.h"
#include "flow/mail.h"
#include "flow/stats.h"
#include "formats.h"
#include "join.h"
#include "loop.h"
#include "dev/lintab.h"
#include "engine/room.h"
#include "model/config.h"
#include "model/safetensors.h"
#include "model/weights.h"
#include "opt.h"

#include <pthread.h>

struct tokenizer;
struct chat_template;

enum { APP_MAX_RANKS = 8 };

struct app {
    char *dir;                       /* the model's folder */
    struct config config;
    struct formats formats;
    struct checkpoint *checkpoint;   /* NULL with dummy weights */
    struct join join;                /* the other processes of the run */
    int32_t n_ranks, n_local;        /* in all processes; in this one */
    struct weights weights[APP_MAX_RANKS]; /* of each rank of this process */
    struct tokenizer *tokenizer;
    struct chat_template *chat_template;
    const struct dev_maker *maker;   /* what --device chose */
    struct lintab products;          /* the user's; GPU */
    int32_t gpus[APP_MAX_RANKS];     /* of each rank of this process; --devices */
    int32_t sharers;                 /* ranks on the GPU that has most */
    struct engine *engine;
    struct sched *sched;
    struct loop loop;
    struct inbox inbox;
    struct stats stats;
    void (*broken)(void *arg, const struct err *e); /* before the process ends because the machine broke; NULL: nothing more to do */
    void *broken_arg;
    struct room room;                /* pages, and the longest sequence that can be served */
    double examined_s;               /* what app_examine took */
    pthread_t thread;
};

/* First: join the run when this is one of several processes. Then one that follows calls app_follow instead of the rest: it
 * loads its ranks' shares, computes what process 0 hands out until that one closes, and returns the exit code. */
int app_join(struct app *a, const struct options *o, struct err *e);
bool app_follows(const struct app *a);
int app_follow(struct app *a, const struct options *o);

/* What --tp and --devices may say; gpus gets the ordinals of n ranks. */
int app_check_ranks(const struct options *o, struct err *e);
int app_devices(int32_t *gpus, int32_t n, const char *text, struct err *e);

/* Choose the device, find the model and look at all that can be wrong with its config and weights, and plan the memory; no weights are
 * read. -1: *e; nothing is left open. Then app_open, or app_abandon when the run ends for another reason, *e. */
int app_examine(struct app *a, const struct options *o, struct err *e);
void app_abandon(struct app *a, const struct err *e);

/* Load the model and start the scheduler thread. -1: *e; nothing is left open. A machine that breaks later ends the
 * process from the scheduler thread (exit code 1), after a call of `broken`, which must be set before. */
int app_open(struct app *a, const struct options *o, struct err *e);
/* Let running requests finish, then release everything. */
void app_close(struct app *a);

#endif
