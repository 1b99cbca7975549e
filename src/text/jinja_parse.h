/* jinja_parse.h: what jinja_parse.c (statements) and jinja_expr.c (expressions) share: the reader of tokens. */
#ifndef MINISGL_TEXT_JINJA_PARSE_H
#define MINISGL_TEXT_JINJA_PARSE_H
#include "text/jinja_int.h"

struct parser {
    struct jinja *t;
    struct jx *x;
    struct token *tok, *cur;
    int nesting;   /* statements and brackets open */
    int for_depth; /* inside a for: `loop` may not be assigned */
    int breakable; /* inside a for of the same function */
};

/* jinja_expr.c */
const char *jp_describe(struct parser *p, const struct token *k); /* for messages */
struct node *jp_node(struct parser *p, enum ntype t, int line);
struct node *jp_name(struct parser *p, const struct token *k);
void jp_push(struct parser *p, struct nodes *l, struct node *n);
struct node *jp_expression(struct parser *p, bool cond); /* cond: `a if b else c` may stand here */
/* One expression, or several with commas. simple: names only, as for targets; parens: () is one; ns: `a.b` is a
 * target. */
struct node *jp_tuple(struct parser *p, bool simple, bool cond, bool parens, bool ns);
struct node *jp_filter(struct parser *p, struct node *in, bool inl); /* inl: the name stands here without a `|` */

#define SYNTAX(...) jinja_syntax(p->x, p->cur->line, __VA_ARGS__)

static inline bool is_op(struct parser *p, const char *op) { return p->cur->t == T_OP && strcmp(p->cur->op, op) == 0; }
static inline bool is_name(const struct token *k, const char *name) { return k->t == T_NAME && str_is(k->s, name); }

static inline struct token *next(struct parser *p) {
    struct token *k = p->cur;
    if (k->t != T_EOF) p->cur++;
    return k;
}
static inline bool skip_op(struct parser *p, const char *op) { return is_op(p, op) ? next(p) != NULL : false; }
static inline bool skip_name(struct parser *p, const char *name) {
    return is_name(p->cur, name) ? next(p) != NULL : false;
}

static inline void expect_op(struct parser *p, const char *op) {
    if (!skip_op(p, op)) SYNTAX("expected token '%s', got '%s'", op, jp_describe(p, p->cur));
}
static inline struct token *expect(struct parser *p, enum tok t, const char *what) {
    if (p->cur->t != t) SYNTAX("expected token '%s', got '%s'", what, jp_describe(p, p->cur));
    return next(p);
}
static inline void expect_name(struct parser *p, const char *name) {
    if (!skip_name(p, name)) SYNTAX("expected token '%s', got '%s'", name, jp_describe(p, p->cur));
}

static inline void nest(struct parser *p) {
    if (++p->nesting > JINJA_MAX_NESTING) SYNTAX("more than %d levels of nesting", JINJA_MAX_NESTING);
}

#endif
