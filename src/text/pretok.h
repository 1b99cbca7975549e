/* pretok.h: the pre-tokenizers of a tokenizer: how a text is cut into words, in steps that each cut what the last one
 * left. The words go straight to the model. */
#ifndef MINISGL_TEXT_PRETOK_H
#define MINISGL_TEXT_PRETOK_H
#include "base/buf.h"
#include "text/bpe.h"
#include "text/pattern.h"

enum pre_kind { PRE_SPLIT, PRE_METASPACE, PRE_BYTE_LEVEL };
/* What becomes of a match. */
enum split_behavior {
    SPLIT_REMOVED,
    SPLIT_ISOLATED,
    SPLIT_MERGED_WITH_PREVIOUS,
    SPLIT_MERGED_WITH_NEXT,
    SPLIT_CONTIGUOUS
};
enum prepend_scheme { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER };

struct pre_step {
    enum pre_kind kind;
    struct pattern *pattern; /* PRE_SPLIT; PRE_METASPACE and PRE_BYTE_LEVEL: what to split at, or NULL; owned */
    enum split_behavior behavior;
    bool invert;
    enum prepend_scheme prepend; /* PRE_METASPACE */
    char replacement[5];         /* PRE_METASPACE: what stands for a space */
    bool prefix_space;           /* PRE_BYTE_LEVEL */
};
enum { PRE_STEPS = 16 };

struct pretok {
    const struct pre_step *step;
    size_t n;
    const struct bpe *bpe;
};
struct pretok_scratch {
    struct buf text[PRE_STEPS]; /* what a step made of its text */
    struct buf tmp[PRE_STEPS];  /* for pattern_start */
    struct bpe_scratch *bpe;
    struct ids *out;
    size_t max_ids; /* stop when *out has more */
    struct err *e;
};
void pretok_scratch_init(struct pretok_scratch *s);
void pretok_scratch_release(struct pretok_scratch *s);
void pre_release(struct pre_step *step, size_t n);

/* Cut a text and append its tokens. `first`: it stands at the very start of the request's text. `slack` as in bpe.h.
 * 0; 1 there would be more than max_ids; -1 error in *s->e. */
struct pretok_text {
    const char *s;
    size_t n, slack;
    bool first;
};
int pretok_run(const struct pretok *p, struct pretok_scratch *s, struct pretok_text t);

#endif
