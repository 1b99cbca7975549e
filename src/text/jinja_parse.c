/* jinja_parse.c: tokens to a tree. Recursive descent with two counters: statements in statements and brackets in
 * brackets (JINJA_MAX_NESTING), and the depth of each tree (JINJA_MAX_TREE), so that no later walk recurses deeper.
 *
 * State: the arena of the compilation. Refuses what Jinja refuses: an error is a JINJA_SYNTAX fault. */
#include "text/jinja_int.h"

#include <stdio.h>

struct parser {
    struct jinja *t;
    struct jx *x;
    struct token *tok, *cur;
    int nesting;   /* statements and brackets open */
    int for_depth; /* inside a for: `loop` may not be assigned */
    int breakable; /* inside a for of the same function */
};

typedef const char *const *endtags;

static struct node *expression(struct parser *p, bool cond);
static struct node *unary(struct parser *p, bool filters);
static struct node *tuple(struct parser *p, bool simple, bool cond, const char *end, bool parens, bool ns);
static void statements(struct parser *p, struct nodes *body, endtags end);

/* ---- tokens ---- */

static const char *describe(struct parser *p, const struct token *k) {
    switch (k->t) {
    case T_EOF: return "end of template";
    case T_DATA: return "template data / text";
    case T_VAR_BEGIN: return "begin of print statement";
    case T_VAR_END: return "end of print statement";
    case T_BLOCK_BEGIN: return "begin of statement block";
    case T_BLOCK_END: return "end of statement block";
    case T_STRING: return "string";
    case T_INT: return "integer";
    case T_FLOAT: return "float";
    case T_OP: return k->op;
    case T_NAME: break;
    }
    size_t n = k->s->n < 60 ? k->s->n : 60;
    char *z = jx_alloc(p->x, n + 1);
    memcpy(z, k->s->p, n);
    z[n] = 0;
    return z;
}

#define SYNTAX(...) jinja_syntax(p->x, p->cur->line, __VA_ARGS__)

static bool is_op(struct parser *p, const char *op) { return p->cur->t == T_OP && strcmp(p->cur->op, op) == 0; }
static bool is_name(const struct token *k, const char *name) { return k->t == T_NAME && str_is(k->s, name); }

static struct token *next(struct parser *p) {
    struct token *k = p->cur;
    if (k->t != T_EOF) p->cur++;
    return k;
}
static bool skip_op(struct parser *p, const char *op) { return is_op(p, op) ? next(p) != NULL : false; }
static bool skip_name(struct parser *p, const char *name) { return is_name(p->cur, name) ? next(p) != NULL : false; }

static void expect_op(struct parser *p, const char *op) {
    if (!skip_op(p, op)) SYNTAX("expected token '%s', got '%s'", op, describe(p, p->cur));
}
static struct token *expect(struct parser *p, enum tok t, const char *what) {
    if (p->cur->t != t) SYNTAX("expected token '%s', got '%s'", what, describe(p, p->cur));
    return next(p);
}
static void expect_name(struct parser *p, const char *name) {
    if (!skip_name(p, name)) SYNTAX("expected token '%s', got '%s'", name, describe(p, p->cur));
}

static void nest(struct parser *p) {
    if (++p->nesting > JINJA_MAX_NESTING) SYNTAX("more than %d levels of nesting", JINJA_MAX_NESTING);
}

/* ---- nodes ---- */

static struct node *new_node(struct parser *p, enum ntype t, int line) {
    struct node *n = NEW(p->x, struct node);
    n->t = t;
    n->line = line;
    n->depth = 1;
    n->loop_slot = n->caller_slot = n->kwargs_slot = n->varargs_slot = -1;
    return n;
}

static void child(struct parser *p, struct node *n, const struct node *c) {
    if (!c || c->depth < n->depth) return;
    n->depth = c->depth + 1;
    if (n->depth > JINJA_MAX_TREE) SYNTAX("an expression nests more than %d levels", JINJA_MAX_TREE);
}

static void push(struct parser *p, struct nodes *l, struct node *n) {
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 4;
        struct node **v = jx_array(p->x, cap, sizeof *v);
        if (l->n) memcpy(v, l->v, l->n * sizeof *v);
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n++] = n;
}

static void push_child(struct parser *p, struct node *parent, struct nodes *l, struct node *n) {
    push(p, l, n);
    child(p, parent, n);
}

static struct node *pair(struct parser *p, enum ntype t, enum op op, struct node *a, struct node *b, int line) {
    struct node *n = new_node(p, t, line);
    n->op = op;
    n->a = a;
    n->b = b;
    child(p, n, a);
    child(p, n, b);
    return n;
}

static struct node *constant(struct parser *p, struct val v, int line) {
    struct node *n = new_node(p, N_CONST, line);
    n->v = v;
    return n;
}

static void mention(struct parser *p, struct str *name) {
    struct jinja *t = p->t;
    if (t->nnames == t->capnames) {
        size_t cap = t->capnames ? t->capnames * 2 : 32;
        struct str **v = jx_array(p->x, cap, sizeof *v);
        if (t->nnames) memcpy(v, t->names, t->nnames * sizeof *v);
        t->names = v;
        t->capnames = cap;
    }
    t->names[t->nnames++] = name;
}

static struct node *name_node(struct parser *p, const struct token *k) {
    struct node *n = new_node(p, N_NAME, k->line);
    n->name = k->s;
    mention(p, k->s);
    return n;
}

/* ---- expressions ---- */

static void keyword(struct parser *p, struct node *n, struct str *name, struct node *value) {
    if (n->vals.n == n->vals.cap) {
        struct str **kw = jx_array(p->x, n->vals.cap ? n->vals.cap * 2 : 4, sizeof *kw);
        if (n->vals.n) memcpy(kw, n->kw, n->vals.n * sizeof *kw);
        n->kw = kw;
    }
    n->kw[n->vals.n] = name;
    for (size_t i = 0; i < n->vals.n; i++)
        if (str_eq(n->kw[i], name)) SYNTAX("keyword argument repeated");
    push_child(p, n, &n->vals, value);
}

static void call_args(struct parser *p, struct node *n) {
    expect_op(p, "(");
    nest(p);
    bool comma = false;
    while (!is_op(p, ")")) {
        if (comma) {
            expect_op(p, ",");
            if (is_op(p, ")")) break;
        }
        comma = true;
        bool bad = false;
        if (is_op(p, "*")) {
            bad = n->dyn || n->dynkw;
            next(p);
            n->dyn = expression(p, true);
            child(p, n, n->dyn);
        } else if (is_op(p, "**")) {
            bad = n->dynkw != NULL;
            next(p);
            n->dynkw = expression(p, true);
            child(p, n, n->dynkw);
        } else if (p->cur->t == T_NAME && p->cur[1].t == T_OP && strcmp(p->cur[1].op, "=") == 0) {
            bad = n->dynkw != NULL;
            struct token *k = next(p);
            next(p);
            keyword(p, n, k->s, expression(p, true));
        } else {
            bad = n->dyn || n->dynkw || n->vals.n;
            push_child(p, n, &n->list, expression(p, true));
        }
        if (bad) SYNTAX("invalid syntax for function call expression");
    }
    expect_op(p, ")");
    p->nesting--;
}

static struct node *call(struct parser *p, struct node *f) {
    struct node *n = new_node(p, N_CALL, p->cur->line);
    n->a = f;
    child(p, n, f);
    call_args(p, n);
    return n;
}

static struct str *dotted_name(struct parser *p) {
    struct str *s = expect(p, T_NAME, "name")->s;
    while (skip_op(p, ".")) {
        struct sb b;
        sb_init(&b, p->x);
        sb_str(&b, s);
        sb_z(&b, ".", true);
        sb_str(&b, expect(p, T_NAME, "name")->s);
        s = sb_take(&b);
    }
    return s;
}

static struct node *filter(struct parser *p, struct node *in, bool inl) {
    while (is_op(p, "|") || inl) {
        if (!inl) next(p);
        inl = false;
        struct node *n = new_node(p, N_FILTER, p->cur->line);
        n->name = dotted_name(p);
        n->a = in;
        child(p, n, in);
        if (is_op(p, "(")) call_args(p, n);
        in = n;
    }
    return in;
}

static struct node *list(struct parser *p) {
    struct node *n = new_node(p, N_LIST, next(p)->line);
    nest(p);
    while (!is_op(p, "]")) {
        if (n->list.n) expect_op(p, ",");
        if (is_op(p, "]")) break;
        push_child(p, n, &n->list, expression(p, true));
    }
    expect_op(p, "]");
    p->nesting--;
    return n;
}

static struct node *dict(struct parser *p) {
    struct node *n = new_node(p, N_DICT, next(p)->line);
    nest(p);
    while (!is_op(p, "}")) {
        if (n->list.n) expect_op(p, ",");
        if (is_op(p, "}")) break;
        push_child(p, n, &n->list, expression(p, true));
        expect_op(p, ":");
        push_child(p, n, &n->vals, expression(p, true));
    }
    expect_op(p, "}");
    p->nesting--;
    return n;
}

static struct node *strings(struct parser *p) { /* 'a' 'b' is one string */
    int line = p->cur->line;
    struct str *s = next(p)->s;
    if (p->cur->t == T_STRING) {
        struct sb b;
        sb_init(&b, p->x);
        sb_str(&b, s);
        while (p->cur->t == T_STRING) sb_str(&b, next(p)->s);
        s = sb_take(&b);
        str_chars(s);
    }
    return constant(p, v_str(s), line);
}

static struct node *name_or_word(struct parser *p, bool ns) {
    struct token *k = next(p);
    if (str_is(k->s, "true") || str_is(k->s, "True")) return constant(p, v_bool(true), k->line);
    if (str_is(k->s, "false") || str_is(k->s, "False")) return constant(p, v_bool(false), k->line);
    if (str_is(k->s, "none") || str_is(k->s, "None")) return constant(p, v_none(), k->line);
    struct node *n = name_node(p, k);
    if (!ns || !skip_op(p, ".")) return n;
    n->t = N_NSREF;
    n->attr = expect(p, T_NAME, "name")->s;
    return n;
}

static struct node *primary(struct parser *p, bool ns) {
    struct token *k = p->cur;
    struct node *n;
    switch (k->t) {
    case T_NAME: return name_or_word(p, ns);
    case T_STRING: return strings(p);
    case T_INT:
    case T_FLOAT: next(p); return constant(p, k->v, k->line);
    default: break;
    }
    if (is_op(p, "[")) return list(p);
    if (is_op(p, "{")) return dict(p);
    if (!is_op(p, "(")) SYNTAX("unexpected '%s'", describe(p, k));
    next(p);
    nest(p);
    n = tuple(p, false, true, NULL, true, false);
    expect_op(p, ")");
    p->nesting--;
    return n;
}

static struct node *subscribed(struct parser *p) { /* an index or a slice */
    struct node *n = new_node(p, N_SLICE, p->cur->line);
    if (!is_op(p, ":")) {
        n->a = expression(p, true);
        if (!is_op(p, ":")) return n->a;
    }
    next(p);
    if (!is_op(p, ":") && !is_op(p, "]") && !is_op(p, ",")) n->b = expression(p, true);
    if (skip_op(p, ":") && !is_op(p, "]") && !is_op(p, ",")) n->c = expression(p, true);
    child(p, n, n->a);
    child(p, n, n->b);
    child(p, n, n->c);
    return n;
}

static struct node *subscript(struct parser *p, struct node *obj) {
    struct token *k = next(p);
    struct node *n = new_node(p, N_ITEM, k->line);
    n->a = obj;
    child(p, n, obj);
    if (k->op[0] == '.') {
        struct token *a = next(p);
        if (a->t == T_NAME) {
            n->t = N_ATTR;
            n->name = a->s;
        } else if (a->t == T_INT) {
            n->b = constant(p, a->v, a->line);
        } else {
            SYNTAX("expected name or number");
        }
        return n;
    }
    nest(p);
    struct node *args = new_node(p, N_TUPLE, k->line);
    while (!is_op(p, "]")) {
        if (args->list.n) expect_op(p, ",");
        push_child(p, args, &args->list, subscribed(p));
    }
    for (size_t i = 0; args->list.n > 1 && i < args->list.n; i++)
        if (args->list.v[i]->t == N_SLICE) SYNTAX("a slice stands alone in its brackets");
    expect_op(p, "]");
    p->nesting--;
    n->b = args->list.n == 1 ? args->list.v[0] : args;
    child(p, n, n->b);
    return n;
}

static struct node *postfix(struct parser *p, struct node *n) {
    for (;;) {
        if (is_op(p, ".") || is_op(p, "["))
            n = subscript(p, n);
        else if (is_op(p, "("))
            n = call(p, n);
        else
            return n;
    }
}

static bool starts_argument(struct parser *p) { /* of a test without brackets: `x is divisibleby 3` */
    switch (p->cur->t) {
    case T_STRING:
    case T_INT:
    case T_FLOAT: return true;
    case T_NAME: return !is_name(p->cur, "else") && !is_name(p->cur, "or") && !is_name(p->cur, "and");
    default: return is_op(p, "[") || is_op(p, "{");
    }
}

static struct node *test(struct parser *p, struct node *in) {
    struct node *n = new_node(p, N_TEST, next(p)->line);
    bool negated = skip_name(p, "not");
    n->name = dotted_name(p);
    n->a = in;
    child(p, n, in);
    if (is_op(p, "(")) {
        call_args(p, n);
    } else if (starts_argument(p)) {
        if (is_name(p->cur, "is")) SYNTAX("You cannot chain multiple tests with is");
        push_child(p, n, &n->list, postfix(p, primary(p, false)));
    }
    return negated ? pair(p, N_NOT, 0, n, NULL, n->line) : n;
}

static struct node *filters(struct parser *p, struct node *n) {
    for (;;) {
        if (is_op(p, "|"))
            n = filter(p, n, false);
        else if (is_name(p->cur, "is"))
            n = test(p, n);
        else if (is_op(p, "("))
            n = call(p, n);
        else
            return n;
    }
}

static struct node *unary(struct parser *p, bool with_filters) {
    struct node *n;
    int line = p->cur->line;
    if (is_op(p, "-") || is_op(p, "+")) {
        nest(p);
        enum ntype t = next(p)->op[0] == '-' ? N_NEG : N_POS;
        n = pair(p, t, 0, unary(p, false), NULL, line);
        p->nesting--;
    } else {
        n = primary(p, false);
    }
    n = postfix(p, n);
    return with_filters ? filters(p, n) : n;
}

static struct node *power(struct parser *p) {
    int line = p->cur->line;
    struct node *n = unary(p, true);
    while (skip_op(p, "**")) n = pair(p, N_BIN, OP_POW, n, unary(p, true), line);
    return n;
}

static struct node *product(struct parser *p) {
    int line = p->cur->line;
    struct node *n = power(p);
    for (;;) {
        enum op op;
        if (is_op(p, "*"))
            op = OP_MUL;
        else if (is_op(p, "/"))
            op = OP_DIV;
        else if (is_op(p, "//"))
            op = OP_FLOORDIV;
        else if (is_op(p, "%"))
            op = OP_MOD;
        else
            return n;
        next(p);
        n = pair(p, N_BIN, op, n, power(p), line);
    }
}

static struct node *concat(struct parser *p) {
    struct node *first = product(p);
    if (!is_op(p, "~")) return first;
    struct node *n = new_node(p, N_CONCAT, first->line);
    push_child(p, n, &n->list, first);
    while (skip_op(p, "~")) push_child(p, n, &n->list, product(p));
    return n;
}

static struct node *sum(struct parser *p) {
    int line = p->cur->line;
    struct node *n = concat(p);
    while (is_op(p, "+") || is_op(p, "-")) {
        enum op op = next(p)->op[0] == '+' ? OP_ADD : OP_SUB;
        n = pair(p, N_BIN, op, n, concat(p), line);
    }
    return n;
}

static bool comparison_op(struct parser *p, enum op *op) {
    static const char *const text[] = {"==", "!=", "<", "<=", ">", ">="};
    for (int i = 0; i < 6; i++) {
        if (!skip_op(p, text[i])) continue;
        *op = (enum op)(OP_EQ + i);
        return true;
    }
    *op = OP_IN;
    if (skip_name(p, "in")) return true;
    if (!is_name(p->cur, "not") || !is_name(p->cur + 1, "in")) return false;
    p->cur += 2;
    *op = OP_NOTIN;
    return true;
}

static struct node *comparison(struct parser *p) {
    struct node *first = sum(p), *n = NULL;
    enum op op;
    while (comparison_op(p, &op)) {
        if (!n) {
            n = new_node(p, N_COMPARE, first->line);
            n->a = first;
            child(p, n, first);
        }
        if (n->vals.n == n->vals.cap) {
            enum op *ops = jx_array(p->x, n->vals.cap ? n->vals.cap * 2 : 4, sizeof *ops);
            if (n->vals.n) memcpy(ops, n->ops, n->vals.n * sizeof *ops);
            n->ops = ops;
        }
        n->ops[n->vals.n] = op;
        push_child(p, n, &n->vals, sum(p));
    }
    return n ? n : first;
}

static struct node *negation(struct parser *p) {
    if (!is_name(p->cur, "not")) return comparison(p);
    nest(p);
    int line = next(p)->line;
    struct node *n = pair(p, N_NOT, 0, negation(p), NULL, line);
    p->nesting--;
    return n;
}

static struct node *conjunction(struct parser *p) {
    struct node *n = negation(p);
    while (skip_name(p, "and")) n = pair(p, N_AND, 0, n, negation(p), n->line);
    return n;
}

static struct node *disjunction(struct parser *p) {
    struct node *n = conjunction(p);
    while (skip_name(p, "or")) n = pair(p, N_OR, 0, n, conjunction(p), n->line);
    return n;
}

static struct node *conditional(struct parser *p) {
    int line = p->cur->line;
    struct node *n = disjunction(p);
    while (skip_name(p, "if")) {
        struct node *test_node = disjunction(p), *other = NULL;
        if (skip_name(p, "else")) {
            nest(p);
            other = conditional(p);
            p->nesting--;
        }
        n = pair(p, N_COND, 0, test_node, n, line);
        n->c = other;
        child(p, n, other);
        line = p->cur->line;
    }
    return n;
}

static struct node *expression(struct parser *p, bool cond) { return cond ? conditional(p) : disjunction(p); }

static bool tuple_end(struct parser *p, const char *end) {
    if (p->cur->t == T_VAR_END || p->cur->t == T_BLOCK_END || is_op(p, ")")) return true;
    return end && is_name(p->cur, end);
}

static struct node *tuple(struct parser *p, bool simple, bool cond, const char *end, bool parens, bool ns) {
    struct node *n = new_node(p, N_TUPLE, p->cur->line);
    bool is_tuple = false;
    for (;;) {
        if (n->list.n) expect_op(p, ",");
        if (tuple_end(p, end)) break;
        push_child(p, n, &n->list, simple ? primary(p, ns) : expression(p, cond));
        if (!is_op(p, ",")) break;
        is_tuple = true;
    }
    if (is_tuple) return n;
    if (n->list.n) return n->list.v[0];
    if (!parens) SYNTAX("Expected an expression, got '%s'", describe(p, p->cur));
    return n;
}

/* ---- targets of assignments ---- */

bool node_is_target(const struct node *n) {
    if (n->t == N_NAME || n->t == N_NSREF) return true;
    if (n->t != N_TUPLE) return false;
    for (size_t i = 0; i < n->list.n; i++)
        if (!node_is_target(n->list.v[i])) return false;
    return true;
}

static void mark_store(struct parser *p, struct node *n) {
    if (n->t == N_NAME && p->for_depth && str_is(n->name, "loop"))
        jinja_syntax(p->x, n->line, "Can't assign to special loop variable in for-loop target");
    n->store = true;
    if (n->t == N_TUPLE)
        for (size_t i = 0; i < n->list.n; i++) mark_store(p, n->list.v[i]);
}

static struct node *target(struct parser *p, const char *end, bool ns) {
    struct node *n = tuple(p, true, true, end, false, ns);
    if (!node_is_target(n)) jinja_syntax(p->x, n->line, "can't assign to this");
    mark_store(p, n);
    return n;
}

static struct node *name_target(struct parser *p) {
    struct token *k = expect(p, T_NAME, "name");
    static const char *const words[] = {"true", "false", "none", "True", "False", "None"};
    for (int i = 0; i < 6; i++)
        if (str_is(k->s, words[i])) jinja_syntax(p->x, k->line, "can't assign to 'name'");
    struct node *n = name_node(p, k);
    n->store = true;
    return n;
}

/* ---- statements ---- */

static const char *const end_for[] = {"endfor", "else", NULL}, *const end_endfor[] = {"endfor", NULL};
static const char *const end_if[] = {"elif", "else", "endif", NULL}, *const end_endif[] = {"endif", NULL};

static void block(struct parser *p, struct nodes *body, endtags end) { /* [:] %} ... {% end, the end tag is current */
    skip_op(p, ":");
    expect(p, T_BLOCK_END, "end of statement block");
    nest(p);
    statements(p, body, end);
    p->nesting--;
    if (p->cur->t == T_EOF) SYNTAX("Unexpected end of template. Jinja was looking for the tag '%s'.", end[0]);
}

static void block_drop(struct parser *p, struct nodes *body, const char *end) { /* the same, and drops the end tag */
    const char *const tags[] = {end, NULL};
    block(p, body, tags);
    next(p);
}

static struct node *parse_for(struct parser *p) {
    struct node *n = new_node(p, N_FOR, next(p)->line);
    p->for_depth++;
    n->a = target(p, "in", false);
    expect_name(p, "in");
    n->b = tuple(p, false, false, "recursive", false, false);
    if (skip_name(p, "if")) n->c = expression(p, true);
    n->recursive = skip_name(p, "recursive");
    p->breakable++;
    block(p, &n->body, end_for);
    p->breakable--;
    bool other = is_name(next(p), "else");
    if (other) {
        int outer = p->breakable;
        if (n->recursive) p->breakable = 0;
        block(p, &n->other, end_endfor);
        next(p);
        p->breakable = outer;
    }
    p->for_depth--;
    return n;
}

static struct node *parse_if(struct parser *p) {
    struct node *result = new_node(p, N_IF, next(p)->line), *n = result;
    for (;;) {
        n->a = tuple(p, false, false, NULL, false, false);
        block(p, &n->body, end_if);
        struct token *k = next(p);
        if (is_name(k, "elif")) {
            n = new_node(p, N_IF, k->line);
            push(p, &result->vals, n); /* elif branches in order, without nesting */
            continue;
        }
        if (is_name(k, "else")) {
            block(p, &result->other, end_endif);
            next(p);
        }
        return result;
    }
}

static struct node *parse_set(struct parser *p) {
    struct node *n = new_node(p, N_SET, next(p)->line);
    n->a = target(p, NULL, true);
    if (skip_op(p, "=")) {
        n->b = tuple(p, false, true, NULL, false, false);
        return n;
    }
    n->t = N_SETBLOCK;
    n->b = filter(p, NULL, false);
    block_drop(p, &n->body, "endset");
    return n;
}

static struct node *parse_with(struct parser *p) {
    struct node *n = new_node(p, N_WITH, next(p)->line);
    while (p->cur->t != T_BLOCK_END) {
        if (n->list.n) expect_op(p, ",");
        push(p, &n->list, target(p, NULL, false));
        expect_op(p, "=");
        push(p, &n->vals, expression(p, true));
    }
    block_drop(p, &n->body, "endwith");
    return n;
}

static void signature(struct parser *p, struct node *n) {
    expect_op(p, "(");
    while (!is_op(p, ")")) {
        if (n->list.n) expect_op(p, ",");
        struct node *arg = name_target(p);
        for (size_t i = 0; i < n->list.n; i++)
            if (str_eq(n->list.v[i]->name, arg->name)) SYNTAX("duplicate argument in a macro definition");
        if (skip_op(p, "="))
            push(p, &n->vals, expression(p, true));
        else if (n->vals.n)
            SYNTAX("non-default argument follows default argument");
        push(p, &n->list, arg);
    }
    expect_op(p, ")");
}

static void function_body(struct parser *p, struct node *n, const char *end) {
    int outer = p->breakable;
    p->breakable = 0;
    block_drop(p, &n->body, end);
    p->breakable = outer;
}

static struct node *parse_macro(struct parser *p) {
    struct node *n = new_node(p, N_MACRO, next(p)->line);
    n->name = name_target(p)->name;
    signature(p, n);
    function_body(p, n, "endmacro");
    return n;
}

static struct node *parse_call(struct parser *p) {
    struct node *n = new_node(p, N_CALLBLOCK, next(p)->line);
    if (is_op(p, "(")) signature(p, n);
    n->a = expression(p, true);
    if (n->a->t != N_CALL) jinja_syntax(p->x, n->line, "expected call");
    function_body(p, n, "endcall");
    return n;
}

static struct node *parse_generation(struct parser *p) {
    struct node *n = new_node(p, N_GENERATION, next(p)->line);
    function_body(p, n, "endgeneration");
    return n;
}

static struct node *parse_filter_block(struct parser *p) {
    struct node *n = new_node(p, N_FILTERBLOCK, next(p)->line);
    n->a = filter(p, NULL, true);
    block_drop(p, &n->body, "endfilter");
    return n;
}

static struct node *parse_block(struct parser *p) {
    struct node *n = new_node(p, N_BLOCK, next(p)->line);
    n->name = expect(p, T_NAME, "name")->s;
    n->scoped = skip_name(p, "scoped");
    bool required = skip_name(p, "required");
    if (is_op(p, "-")) SYNTAX("Block names may not contain hyphens, use an underscore instead.");
    for (size_t i = 0; i < p->t->blocks.n; i++)
        if (str_eq(p->t->blocks.v[i]->name, n->name)) SYNTAX("block defined twice");
    push(p, &p->t->blocks, n);
    function_body(p, n, "endblock");
    if (required) SYNTAX("required blocks need template inheritance, which is not supported");
    if (p->cur->t == T_NAME && str_eq(p->cur->s, n->name)) next(p);
    return n;
}

static struct node *parse_print(struct parser *p) {
    struct node *n = new_node(p, N_OUTPUT, next(p)->line);
    while (p->cur->t != T_BLOCK_END) {
        if (n->list.n) expect_op(p, ",");
        push(p, &n->list, expression(p, true));
    }
    return n;
}

static struct node *parse_autoescape(struct parser *p) {
    struct node *n = new_node(p, N_AUTOESCAPE, next(p)->line);
    n->a = expression(p, true);
    block_drop(p, &n->body, "endautoescape");
    return n;
}

static struct node *parse_loop_control(struct parser *p) {
    struct node *n = new_node(p, is_name(p->cur, "break") ? N_BREAK : N_CONTINUE, p->cur->line);
    next(p);
    if (!p->breakable) SYNTAX("'%s' outside loop", n->t == N_BREAK ? "break" : "continue");
    return n;
}

static void skip_context(struct parser *p) {
    if ((is_name(p->cur, "with") || is_name(p->cur, "without")) && is_name(p->cur + 1, "context")) p->cur += 2;
}

static void import_names(struct parser *p, struct node *n) { /* {% from X import a, b as c %} */
    for (;;) {
        if (n->list.n) expect_op(p, ",");
        if (p->cur->t != T_NAME) expect(p, T_NAME, "name");
        struct token *before = p->cur;
        skip_context(p);
        if (p->cur != before) return;
        struct node *name = name_target(p);
        if (name->name->p[0] == '_') SYNTAX("names starting with an underline can not be imported");
        push(p, &n->list, skip_name(p, "as") ? name_target(p) : name);
        before = p->cur;
        skip_context(p);
        if (p->cur != before || !is_op(p, ",")) return;
    }
}

static struct node *parse_loading(struct parser *p) { /* include, import, from, extends: read, and refused when run */
    struct node *n = new_node(p, N_NOLOAD, p->cur->line);
    struct token *k = next(p);
    n->a = expression(p, true);
    if (is_name(k, "import")) {
        expect_name(p, "as");
        push(p, &n->list, name_target(p));
        skip_context(p);
    } else if (is_name(k, "from")) {
        expect_name(p, "import");
        import_names(p, n);
    } else if (is_name(k, "include")) {
        if (is_name(p->cur, "ignore") && is_name(p->cur + 1, "missing")) p->cur += 2;
        skip_context(p);
    }
    return n;
}

typedef struct node *statement_fn(struct parser *p);
static const struct {
    const char *name;
    statement_fn *fn;
} tags[] = {{"for", parse_for},
            {"if", parse_if},
            {"set", parse_set},
            {"with", parse_with},
            {"macro", parse_macro},
            {"call", parse_call},
            {"filter", parse_filter_block},
            {"block", parse_block},
            {"print", parse_print},
            {"autoescape", parse_autoescape},
            {"generation", parse_generation},
            {"break", parse_loop_control},
            {"continue", parse_loop_control},
            {"include", parse_loading},
            {"import", parse_loading},
            {"from", parse_loading},
            {"extends", parse_loading}};

static struct node *statement(struct parser *p) {
    if (p->cur->t != T_NAME) SYNTAX("tag name expected");
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
        if (is_name(p->cur, tags[i].name)) return tags[i].fn(p);
    SYNTAX("Encountered unknown tag '%s'.", describe(p, p->cur));
}

static void output(struct parser *p, struct nodes *body, struct node *n) { /* text and {{ }} in a row are one node */
    struct node *last = body->n ? body->v[body->n - 1] : NULL;
    if (!last || last->t != N_OUTPUT) {
        last = new_node(p, N_OUTPUT, n->line);
        push(p, body, last);
    }
    push(p, &last->list, n);
}

static bool at_end(struct parser *p, endtags end) {
    if (p->cur->t != T_NAME) return false;
    for (; end && *end; end++)
        if (is_name(p->cur, *end)) return true;
    return false;
}

static void statements(struct parser *p, struct nodes *body, endtags end) {
    while (p->cur->t != T_EOF) {
        struct token *k = next(p);
        if (k->t == T_DATA) {
            struct node *text = new_node(p, N_DATA, k->line);
            text->v = v_str(k->s);
            output(p, body, text);
        } else if (k->t == T_VAR_BEGIN) {
            output(p, body, tuple(p, false, true, NULL, false, false));
            expect(p, T_VAR_END, "end of print statement");
        } else {
            if (at_end(p, end)) return;
            push(p, body, statement(p));
            expect(p, T_BLOCK_END, "end of statement block");
        }
    }
}

void jinja_parse(struct jinja *t, struct token *tokens, size_t count) {
    struct parser p = {.t = t, .x = &t->x, .tok = tokens, .cur = tokens};
    (void)count;
    statements(&p, &t->body, NULL);
}
