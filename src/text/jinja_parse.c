/* jinja_parse.c: statements, tokens to a tree. Recursive descent with a counter of statements in statements and
 * brackets in brackets (JINJA_MAX_NESTING); expressions are read by jinja_expr.c.
 *
 * State: the arena of the compilation. Refuses what Jinja refuses: an error is a JINJA_SYNTAX fault. */
#include "text/jinja_parse.h"

typedef const char *const *endtags;

static void statements(struct parser *p, struct nodes *body, endtags end);

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

static struct node *target(struct parser *p, bool ns) {
    struct node *n = jp_tuple(p, true, true, false, ns);
    if (!node_is_target(n)) jinja_syntax(p->x, n->line, "can't assign to this");
    mark_store(p, n);
    return n;
}

static struct node *name_target(struct parser *p) {
    struct token *k = expect(p, T_NAME, "name");
    static const char *const words[] = {"true", "false", "none", "True", "False", "None"};
    for (int i = 0; i < 6; i++)
        if (str_is(k->s, words[i])) jinja_syntax(p->x, k->line, "can't assign to 'name'");
    struct node *n = jp_name(p, k);
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
    struct node *n = jp_node(p, N_FOR, next(p)->line);
    p->for_depth++;
    n->a = target(p, false);
    expect_name(p, "in");
    n->b = jp_tuple(p, false, false, false, false);
    if (skip_name(p, "if")) n->c = jp_expression(p, true);
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
    struct node *result = jp_node(p, N_IF, next(p)->line), *n = result;
    for (;;) {
        n->a = jp_tuple(p, false, false, false, false);
        block(p, &n->body, end_if);
        struct token *k = next(p);
        if (is_name(k, "elif")) {
            n = jp_node(p, N_IF, k->line);
            jp_push(p, &result->vals, n); /* elif branches in order, without nesting */
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
    struct node *n = jp_node(p, N_SET, next(p)->line);
    n->a = target(p, true);
    if (skip_op(p, "=")) {
        n->b = jp_tuple(p, false, true, false, false);
        return n;
    }
    n->t = N_SETBLOCK;
    n->b = jp_filter(p, NULL, false);
    block_drop(p, &n->body, "endset");
    return n;
}

static struct node *parse_with(struct parser *p) {
    struct node *n = jp_node(p, N_WITH, next(p)->line);
    while (p->cur->t != T_BLOCK_END) {
        if (n->list.n) expect_op(p, ",");
        jp_push(p, &n->list, target(p, false));
        expect_op(p, "=");
        jp_push(p, &n->vals, jp_expression(p, true));
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
            jp_push(p, &n->vals, jp_expression(p, true));
        else if (n->vals.n)
            SYNTAX("non-default argument follows default argument");
        jp_push(p, &n->list, arg);
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
    struct node *n = jp_node(p, N_MACRO, next(p)->line);
    n->name = name_target(p)->name;
    signature(p, n);
    function_body(p, n, "endmacro");
    return n;
}

static struct node *parse_call(struct parser *p) {
    struct node *n = jp_node(p, N_CALLBLOCK, next(p)->line);
    if (is_op(p, "(")) signature(p, n);
    n->a = jp_expression(p, true);
    if (n->a->t != N_CALL) jinja_syntax(p->x, n->line, "expected call");
    function_body(p, n, "endcall");
    return n;
}

static struct node *parse_generation(struct parser *p) {
    struct node *n = jp_node(p, N_GENERATION, next(p)->line);
    function_body(p, n, "endgeneration");
    return n;
}

static struct node *parse_filter_block(struct parser *p) {
    struct node *n = jp_node(p, N_FILTERBLOCK, next(p)->line);
    n->a = jp_filter(p, NULL, true);
    block_drop(p, &n->body, "endfilter");
    return n;
}

static struct node *parse_block(struct parser *p) {
    struct node *n = jp_node(p, N_BLOCK, next(p)->line);
    n->name = expect(p, T_NAME, "name")->s;
    n->scoped = skip_name(p, "scoped");
    bool required = skip_name(p, "required");
    if (is_op(p, "-")) SYNTAX("Block names may not contain hyphens, use an underscore instead.");
    for (size_t i = 0; i < p->t->blocks.n; i++)
        if (str_eq(p->t->blocks.v[i]->name, n->name)) SYNTAX("block defined twice");
    jp_push(p, &p->t->blocks, n);
    function_body(p, n, "endblock");
    if (required) SYNTAX("required blocks need template inheritance, which is not supported");
    if (p->cur->t == T_NAME && str_eq(p->cur->s, n->name)) next(p);
    return n;
}

static struct node *parse_print(struct parser *p) {
    struct node *n = jp_node(p, N_OUTPUT, next(p)->line);
    while (p->cur->t != T_BLOCK_END) {
        if (n->list.n) expect_op(p, ",");
        jp_push(p, &n->list, jp_expression(p, true));
    }
    return n;
}

static struct node *parse_autoescape(struct parser *p) {
    struct node *n = jp_node(p, N_AUTOESCAPE, next(p)->line);
    n->a = jp_expression(p, true);
    block_drop(p, &n->body, "endautoescape");
    return n;
}

static struct node *parse_loop_control(struct parser *p) {
    struct node *n = jp_node(p, is_name(p->cur, "break") ? N_BREAK : N_CONTINUE, p->cur->line);
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
        jp_push(p, &n->list, skip_name(p, "as") ? name_target(p) : name);
        before = p->cur;
        skip_context(p);
        if (p->cur != before || !is_op(p, ",")) return;
    }
}

static struct node *parse_loading(struct parser *p) { /* include, import, from, extends: read, and refused when run */
    struct node *n = jp_node(p, N_NOLOAD, p->cur->line);
    struct token *k = next(p);
    n->a = jp_expression(p, true);
    if (is_name(k, "import")) {
        expect_name(p, "as");
        jp_push(p, &n->list, name_target(p));
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
    SYNTAX("Encountered unknown tag '%s'.", jp_describe(p, p->cur));
}

static void output(struct parser *p, struct nodes *body, struct node *n) { /* text and {{ }} in a row are one node */
    struct node *last = body->n ? body->v[body->n - 1] : NULL;
    if (!last || last->t != N_OUTPUT) {
        last = jp_node(p, N_OUTPUT, n->line);
        jp_push(p, body, last);
    }
    jp_push(p, &last->list, n);
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
            struct node *text = jp_node(p, N_DATA, k->line);
            text->v = v_str(k->s);
            output(p, body, text);
        } else if (k->t == T_VAR_BEGIN) {
            output(p, body, jp_tuple(p, false, true, false, false));
            expect(p, T_VAR_END, "end of print statement");
        } else {
            if (at_end(p, end)) return;
            jp_push(p, body, statement(p));
            expect(p, T_BLOCK_END, "end of statement block");
        }
    }
}

void jinja_parse(struct jinja *t, struct token *tokens, size_t count) {
    struct parser p = {.t = t, .x = &t->x, .tok = tokens, .cur = tokens};
    (void)count;
    statements(&p, &t->body, NULL);
}
