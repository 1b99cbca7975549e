/* jinja_expr.c: expressions, tokens to a tree. Recursive descent, in the order of Jinja's precedences: what binds
 * least comes last. The depth of each tree is counted (JINJA_MAX_TREE), so that no later walk recurses deeper.
 *
 * State: the arena of the compilation. Refuses what Jinja refuses: an error is a JINJA_SYNTAX fault. */
#include "text/jinja_parse.h"

static struct node *unary(struct parser *p, bool filters);

const char *jp_describe(struct parser *p, const struct token *k) {
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

/* ---- nodes ---- */

struct node *jp_node(struct parser *p, enum ntype t, int line) {
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

void jp_push(struct parser *p, struct nodes *l, struct node *n) {
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
    jp_push(p, l, n);
    child(p, parent, n);
}

static struct node *pair(struct parser *p, enum ntype t, enum op op, struct node *a, struct node *b, int line) {
    struct node *n = jp_node(p, t, line);
    n->op = op;
    n->a = a;
    n->b = b;
    child(p, n, a);
    child(p, n, b);
    return n;
}

static struct node *constant(struct parser *p, struct val v, int line) {
    struct node *n = jp_node(p, N_CONST, line);
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

struct node *jp_name(struct parser *p, const struct token *k) {
    struct node *n = jp_node(p, N_NAME, k->line);
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
            n->dyn = jp_expression(p, true);
            child(p, n, n->dyn);
        } else if (is_op(p, "**")) {
            bad = n->dynkw != NULL;
            next(p);
            n->dynkw = jp_expression(p, true);
            child(p, n, n->dynkw);
        } else if (p->cur->t == T_NAME && p->cur[1].t == T_OP && strcmp(p->cur[1].op, "=") == 0) {
            bad = n->dynkw != NULL;
            struct token *k = next(p);
            next(p);
            keyword(p, n, k->s, jp_expression(p, true));
        } else {
            bad = n->dyn || n->dynkw || n->vals.n;
            push_child(p, n, &n->list, jp_expression(p, true));
        }
        if (bad) SYNTAX("invalid syntax for function call expression");
    }
    expect_op(p, ")");
    p->nesting--;
}

static struct node *call(struct parser *p, struct node *f) {
    struct node *n = jp_node(p, N_CALL, p->cur->line);
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

struct node *jp_filter(struct parser *p, struct node *in, bool inl) {
    while (is_op(p, "|") || inl) {
        if (!inl) next(p);
        inl = false;
        struct node *n = jp_node(p, N_FILTER, p->cur->line);
        n->name = dotted_name(p);
        n->a = in;
        child(p, n, in);
        if (is_op(p, "(")) call_args(p, n);
        in = n;
    }
    return in;
}

static struct node *list(struct parser *p) {
    struct node *n = jp_node(p, N_LIST, next(p)->line);
    nest(p);
    while (!is_op(p, "]")) {
        if (n->list.n) expect_op(p, ",");
        if (is_op(p, "]")) break;
        push_child(p, n, &n->list, jp_expression(p, true));
    }
    expect_op(p, "]");
    p->nesting--;
    return n;
}

/* Refused where it is written, also in a branch that never runs: Jinja does the same when it folds the constant, and it
 * folds some. */
static void check_key(struct parser *p, const struct node *key) {
    if (key->t == N_LIST || key->t == N_DICT) SYNTAX("unhashable type: '%s'", key->t == N_LIST ? "list" : "dict");
    for (size_t i = 0; key->t == N_TUPLE && i < key->list.n; i++) check_key(p, key->list.v[i]);
}

static struct node *dict(struct parser *p) {
    struct node *n = jp_node(p, N_DICT, next(p)->line);
    nest(p);
    while (!is_op(p, "}")) {
        if (n->list.n) expect_op(p, ",");
        if (is_op(p, "}")) break;
        push_child(p, n, &n->list, jp_expression(p, true));
        check_key(p, n->list.v[n->list.n - 1]);
        expect_op(p, ":");
        push_child(p, n, &n->vals, jp_expression(p, true));
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
    struct node *n = jp_name(p, k);
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
    if (!is_op(p, "(")) SYNTAX("unexpected '%s'", jp_describe(p, k));
    next(p);
    nest(p);
    n = jp_tuple(p, false, true, true, false);
    expect_op(p, ")");
    p->nesting--;
    return n;
}

static struct node *subscribed(struct parser *p) { /* an index or a slice */
    struct node *n = jp_node(p, N_SLICE, p->cur->line);
    if (!is_op(p, ":")) {
        n->a = jp_expression(p, true);
        if (!is_op(p, ":")) return n->a;
    }
    next(p);
    if (!is_op(p, ":") && !is_op(p, "]") && !is_op(p, ",")) n->b = jp_expression(p, true);
    if (skip_op(p, ":") && !is_op(p, "]") && !is_op(p, ",")) n->c = jp_expression(p, true);
    child(p, n, n->a);
    child(p, n, n->b);
    child(p, n, n->c);
    return n;
}

static struct node *subscript(struct parser *p, struct node *obj) {
    struct token *k = next(p);
    struct node *n = jp_node(p, N_ITEM, k->line);
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
    struct node *args = jp_node(p, N_TUPLE, k->line);
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
    struct node *n = jp_node(p, N_TEST, next(p)->line);
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
            n = jp_filter(p, n, false);
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
    struct node *n = jp_node(p, N_CONCAT, first->line);
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
            n = jp_node(p, N_COMPARE, first->line);
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

struct node *jp_expression(struct parser *p, bool cond) {
    return cond ? conditional(p) : disjunction(p);
}

/* After a comma. `in` does not end it: Jinja means it to, but reads `for a, in x` as a target named in. */
static bool tuple_end(struct parser *p) { return p->cur->t == T_VAR_END || p->cur->t == T_BLOCK_END || is_op(p, ")"); }

struct node *jp_tuple(struct parser *p, bool simple, bool cond, bool parens, bool ns) {
    struct node *n = jp_node(p, N_TUPLE, p->cur->line);
    bool is_tuple = false;
    for (;;) {
        if (n->list.n) expect_op(p, ",");
        if (tuple_end(p)) break;
        push_child(p, n, &n->list, simple ? primary(p, ns) : jp_expression(p, cond));
        if (!is_op(p, ",")) break;
        is_tuple = true;
    }
    if (is_tuple) return n;
    if (n->list.n) return n->list.v[0];
    if (!parens) SYNTAX("Expected an expression, got '%s'", jp_describe(p, p->cur));
    return n;
}
