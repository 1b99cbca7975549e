"""Random expressions and templates from a grammar, mostly well typed so that most of them render."""

import random

VARIABLES = {
    "i": 7,
    "j": -3,
    "z": 0,
    "f": 2.5,
    "g": -0.125,
    "big": 1e20,
    "t": True,
    "no": False,
    "n": None,
    "s": "Hello World",
    "e": "",
    "u": "Grüße Straße ΑΣ 日本😀",
    "sp": "  a b\tc \n",
    "html": '<b>&"x"\'</b>',
    "csv": "a,b,,c",
    "num": "42",
    "fl": "3.75",
    "lines": "one\ntwo\r\n\nthree ",
    "l": [3, 1, 2],
    "sl": ["b", "A", "c", "a"],
    "ml": [1, "x", None, 2.5, True],
    "el": [],
    "nl": [[1, 2], [3], []],
    "d": {"a": 1, "b": "two", "items": [1], "B": None},
    "ed": {},
    "rows": [
        {"name": "Bob", "age": 30, "tags": ["x"]},
        {"name": "alice", "age": 25, "tags": []},
        {"name": "Carl", "age": 30, "tags": ["y", "x"]},
    ],
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi <|im_end|>"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": {"x": 1, "é": [1.0, None]}}}],
        },
        {"role": "tool", "content": '{"a": 1}'},
    ],
}
NAMES = {
    "int": ["i", "j", "z", "t", "no"],
    "float": ["f", "g", "big"],
    "str": ["s", "e", "u", "sp", "html", "csv", "num", "fl", "lines"],
    "list": ["l", "sl", "ml", "el", "nl", "rows", "messages"],
    "dict": ["d", "ed", "rows[0]", "messages[1]"],
    "any": ["n", "undef", "i", "f", "s", "l", "d", "u", "t", "ml", "range(3)"],
}
STRINGS = [
    "''",
    "'a'",
    "'b'",
    '"x\'y"',
    "'A b'",
    "','",
    "' '",
    "'é'",
    "'\\n'",
    "'%s'",
    "'o'",
    "'abc' 'def'",
    "'{}'",
    "'日'",
    "'%'",
    "'0'",
    "'\\u00df'",
    "'l'",
    "'\\\\'",
    "'aXbXc'",
    "'12'",
    "'-5.5'",
    "'1e3'",
    "' 7 '",
    "'0x1f'",
    "'TitLe caSe wOrd-s (x) it\\'s'",
]
TESTS0 = [
    "defined",
    "undefined",
    "none",
    "boolean",
    "true",
    "false",
    "integer",
    "float",
    "number",
    "string",
    "mapping",
    "sequence",
    "iterable",
    "callable",
    "lower",
    "upper",
    "escaped",
    "odd",
    "even",
    "filter",
    "test",
]


class Random:
    def __init__(self, seed):
        self.r = random.Random(seed)

    def pick(self, *options):
        one = self.r.choice(options)  # a backtick stands for a double quote: f-strings take no backslash inside {}
        return one.replace("`", '"') if isinstance(one, str) else one

    def expr(self, depth=3, kind=None):
        kind = kind or self.pick("int", "float", "str", "str", "str", "list", "list", "dict", "bool", "any")
        if self.r.random() < 0.03:
            kind = "any"
        if depth <= 0:
            return self.leaf(kind)
        return getattr(self, "x_" + kind)(depth - 1)

    def leaf(self, kind):
        r = self.r
        if kind == "bool":
            return self.pick("true", "false", "t", "no", "True", "False")
        if kind == "int":
            return self.pick(str(r.randint(-5, 12)), str(r.randint(0, 3)), *NAMES["int"])
        if kind == "float":
            return self.pick("1.5", "0.1", "2.0", "1e3", "1e-7", "123456789.125", "0.5", "100.0", *NAMES["float"])
        if kind == "str":
            return self.pick(*STRINGS, *NAMES["str"])
        if kind == "list":
            return self.pick("[]", "[1, 2, 3]", "('a', 'b')", "[1]", "('x',)", "()", "['b', 'a']", *NAMES["list"])
        if kind == "dict":
            return self.pick("{}", "{'a': 1}", "{'k': 'v', 'a': [1]}", "{1: 2, 'x': none}", *NAMES["dict"])
        return self.pick("none", *NAMES["any"])

    def e(self, d, kind):
        return self.expr(d, kind)

    def wrap(self, text):
        return "(" + text + ")"

    def common(self, d, kind):
        e = lambda k: self.e(d, k)
        return self.pick(
            lambda: f"({e(kind)} if {e('bool')} else {e(kind)})",
            lambda: f"({e(kind)} or {e(kind)})",
            lambda: f"({e(kind)} and {e(kind)})",
            lambda: f"{self.leaf(kind)}|default({e(kind)})",
            lambda: f"undef|default({e(kind)})",
            lambda: f"[{e(kind)}, {e(kind)}]|first",
            lambda: f"[{e(kind)}]|last",
            lambda: f"{{'k': {e(kind)}}}.k",
            lambda: f"{{'k': {e(kind)}}}['k']",
            lambda: f"[{e(kind)}][0]",
            lambda: f"({e(kind)} if {e('bool')})",
            lambda: f"{e('any')}|d({e(kind)}, true)",
            lambda: f"{{'k': {e(kind)}}}.get('k')",
        )()

    def x_bool(self, d):
        e = lambda k: self.e(d, k)
        k = self.pick("int", "float", "str", "list", "any")
        return self.pick(
            lambda: f"({e(k)} {self.pick('==', '!=')} {e(self.pick(k, 'any'))})",
            lambda: f"({e(k)} {self.pick('<', '<=', '>', '>=')} {e(k)})",
            lambda: f"({e('int')} < {e('float')} <= {e('int')})",
            lambda: f"(not {e('any')})",
            lambda: f"({e('str')} {self.pick('in', 'not in')} {e('str')})",
            lambda: f"({e('any')} {self.pick('in', 'not in')} {e('list')})",
            lambda: f"({e('str')} in {e('dict')})",
            lambda: f"({e('any')} is {self.pick('', 'not ')}{self.pick(*TESTS0)})",
            lambda: f"({e('int')} is divisibleby {self.leaf('int')})",
            lambda: f"({e('any')} is in {e('list')})",
            lambda: f"({e('int')} is {self.pick('eq', 'ne', 'lt', 'gt', 'ge', 'le', 'equalto', 'lessthan')} "
            f"{self.leaf('int')})",
            lambda: f"({e('any')} is sameas {self.pick('none', 'true', 'false')})",
            lambda: f"{e('str')}.{self.pick('startswith', 'endswith')}({e('str')})",
            lambda: f"{e('str')}.startswith(({e('str')}, {e('str')}))",
            lambda: f"{e('str')}."
            + self.pick(
                "isdigit",
                "isalpha",
                "isalnum",
                "isupper",
                "islower",
                "isspace",
                "istitle",
                "isnumeric",
                "isdecimal",
                "isascii",
                "isidentifier",
                "isprintable",
            )
            + f"()",
            lambda: self.common(d, "bool"),
            lambda: f"({e('bool')} and {e('bool')})",
        )()

    def x_int(self, d):
        e = lambda k: self.e(d, k)
        return self.pick(
            lambda: f"({e('int')} {self.pick('+', '-', '*', '//', '%')} {e('int')})",
            lambda: f"({e('int')} ** {self.pick('0', '1', '2', '3')})",
            lambda: f"-{self.wrap(e('int'))}",
            lambda: f"{e('str')}|length",
            lambda: f"{e('list')}|count",
            lambda: f"{e('str')}|int({e('int')})",
            lambda: f"{e('float')}|int",
            lambda: f"{e('int')}|abs",
            lambda: f"{e('str')}.{self.pick('find', 'rfind', 'count', 'index')}({e('str')})",
            lambda: f"{e('list')}.{self.pick('index', 'count')}({e('any')})",
            lambda: f"{e('str')}|wordcount",
            lambda: f"[{e('int')}, {e('int')}]|{self.pick('sum', 'min', 'max')}",
            lambda: f"{e('str')}.find({e('str')}, {e('int')}, {e('int')})",
            lambda: f"{e('int')}|round({self.pick('0', '-1', '1')})",
            lambda: f"{e('str')}|int(base={self.pick('2', '8', '16', '10', '0')})",
            lambda: self.common(d, "int"),
            lambda: f"rows|sum(attribute='age')",
            lambda: f"{e('int')}.bit_length()",
        )()

    def x_float(self, d):
        e = lambda k: self.e(d, k)
        return self.pick(
            lambda: f"({e('float')} {self.pick('+', '-', '*', '/', '//', '%')} {e(self.pick('float', 'int'))})",
            lambda: f"({e('int')} / {e('int')})",
            lambda: f"{e('float')}|round({self.pick('0', '1', '2', '3', '-1')})",
            lambda: f"{e('float')}|round({self.pick('0', '1', '2')}, '{self.pick('ceil', 'floor', 'common')}')",
            lambda: f"{e('str')}|float",
            lambda: f"{e('int')}|float",
            lambda: f"({e('float')} ** {self.pick('2', '0.5', '-1', '3')})",
            lambda: f"{e('float')}|abs",
            lambda: self.common(d, "float"),
            lambda: f"-{self.wrap(e('float'))}",
        )()

    def slice(self, d):
        part = lambda: self.pick("", "", str(self.r.randint(-6, 6)), self.e(min(d, 1), "int"))
        return f"[{part()}:{part()}{self.pick('', ':' + self.pick('', '1', '2', '-1', '-2', '3'))}]"

    def x_str(self, d):
        e = lambda k: self.e(d, k)
        return self.pick(
            lambda: f"({e('str')} + {e('str')})",
            lambda: f"({e('str')} ~ {e('any')})",
            lambda: f"({e('str')} * {self.pick('0', '1', '2', '3', '-1')})",
            lambda: f"({e('any')} ~ {e('float')} ~ {e('list')})",
            lambda: f"{self.wrap(e('str'))}{self.slice(d)}",
            lambda: f"{self.wrap(e('str'))}[{e('int')}]",
            lambda: f"{e('str')}|"
            + self.pick(
                "upper",
                "lower",
                "capitalize",
                "title",
                "trim",
                "escape",
                "e",
                "string",
                "reverse",
                "striptags",
                "safe",
                "forceescape",
                "urlencode",
            ),
            lambda: f"{e('str')}."
            f"{self.pick('upper', 'lower', 'capitalize', 'title', 'strip', 'lstrip', 'rstrip', 'swapcase', 'casefold')}"
            f"()",
            lambda: f"{e('str')}.{self.pick('strip', 'lstrip', 'rstrip', 'removeprefix', 'removesuffix')}({e('str')})",
            lambda: f"{e('str')}|replace({e('str')}, {e('str')}{self.pick('', ', 1', ', 2')})",
            lambda: f"{e('str')}.replace({e('str')}, {e('str')})",
            lambda: f"{e('list')}|join({e('str')})",
            lambda: f"{e('str')}.join({e('list')})",
            lambda: f"rows|join(', ', attribute='{self.pick('name', 'age', 'tags.0', 'nope')}')",
            lambda: f"{e('any')}|tojson("
            + self.pick(
                "",
                "",
                "indent=2",
                "indent=0",
                "ensure_ascii=true",
                "sort_keys=true",
                "separators=(chr, 1)",
                "indent=1, separators=(`,`, `:`)",
            )
            + f")",
            lambda: f"{e('dict')}|tojson",
            lambda: f"{e('list')}|tojson(indent={self.pick('1', '4')})",
            lambda: f"{e('any')}|string",
            lambda: f"('{self.pick('%s', '%r', '%5s|', '%-5s|', '%.2s', '%s%%', '%5.1s|')}' % "
            f"{self.wrap(e('any') + ',')})",
            lambda: f"('"
            + self.pick(
                "%d",
                "%5d",
                "%05d",
                "%+d",
                "%x",
                "%o",
                "%-4d|",
                "% d",
                "%#x",
                "%e",
                "%.3f",
                "%g",
                "%i",
                "%c",
                "%.3d",
                "%X",
            )
            + f"' % {self.wrap(e(self.pick('int', 'float')) + ',')})",
            lambda: f"'{self.pick('%s-%s', '%s', '%d %s', '%(a)s')}'|format("
            f"{self.pick(e('any') + ', ' + e('any'), e('any'), 'a=' + e('any'))})",
            lambda: f"'"
            + self.pick(
                "{}", "{0}", "{:>6}", "{:<6}|", "{:^7}", "{!r}", "{:*^9}", "{0}{0}", "{:.2}", "{{}}{}", "{0!s:>4}"
            )
            + f"'.format({e('str')})",
            lambda: f"'"
            + self.pick(
                "{}",
                "{:d}",
                "{:5d}",
                "{:05d}",
                "{:+}",
                "{:x}",
                "{:#x}",
                "{:b}",
                "{:,}",
                "{:.2f}",
                "{:e}",
                "{:>8}",
                "{:%}",
                "{:08.3f}",
                "{:_}",
                "{:g}",
                "{:.3}",
                "{:n}",
                "{: }",
                "{:=+8}",
            )
            + f"'.format({e(self.pick('int', 'float'))})",
            lambda: f"'{self.pick('{a}', '{a.b}', '{a[0]}', '{a[k]}', '{a:>{w}}')}'.format(a="
            f"{e(self.pick('list', 'dict', 'str'))}, w={self.pick('3', '8')})",
            lambda: f"{e('str')}.{self.pick('center', 'ljust', 'rjust', 'zfill')}({self.pick('3', '8', '15')})",
            lambda: f"{e('str')}|center({self.pick('5', '12', '')})",
            lambda: f"{e('str')}.{self.pick('ljust', 'rjust', 'center')}(9, "
            f"{self.pick(repr('*'), repr('é'), repr('ab'))})",
            lambda: f"{e('str')}|truncate("
            f"{self.pick('3', '5', '8', '10', '5, true', '8, false, ``', '7, true, `…`, 0', '6, leeway=2')}"
            f")",
            lambda: f"{e('str')}|indent("
            f"{self.pick('', '2', 'width=3, first=true', '1, true, true', repr('> '), '2, blank=true')})",
            lambda: f"{e('str')}|wordwrap("
            f"{self.pick('5', '8', '10', '4, false', '3, true, `|`', '6, break_on_hyphens=false')})",
            lambda: f"{e('str')}|trim({self.pick(repr('a'), repr('Hd '), '')})",
            lambda: f"{e('int')}|filesizeformat({self.pick('', 'true')})",
            lambda: f"{e('dict')}|urlencode",
            lambda: f"{e('dict')}|xmlattr",
            lambda: self.common(d, "str"),
            lambda: f"{e('list')}|string",
            lambda: f"{e('str')}.expandtabs(4)",
            lambda: f"({e('str')}|e + {e('str')})",
            lambda: f"({e('int')} * 1000)|filesizeformat",
        )()

    def x_list(self, d):
        e = lambda k: self.e(d, k)
        inner = lambda: self.pick(
            "upper", "lower", "length", "string", "int", "abs", "first", "trim", "title", "tojson"
        )
        test = lambda: self.pick(
            "odd", "even", "string", "number", "none", "defined", "eq', 1, '", "in', [1, 2", "gt', 1, 'x'"
        )
        return self.pick(
            lambda: f"[{e('any')}, {e('any')}]",
            lambda: f"[{e('str')}, {e('str')}, {e('str')}]",
            lambda: f"[{e('int')}, {e('int')}, {e('int')}]",
            lambda: f"({e('any')}, {e('any')})",
            lambda: f"({e('list')} + {e('list')})",
            lambda: f"({e('list')} * {self.pick('0', '2', '-1')})",
            lambda: f"{self.wrap(e('list'))}{self.slice(d)}",
            lambda: f"{e('list')}|"
            + self.pick(
                "sort",
                "sort(reverse=true)",
                "sort(case_sensitive=true)",
                "list",
                "reverse|list",
                "unique|list",
                "unique(true)|list",
            ),
            lambda: f"[{e('str')}, {e('str')}, {e('str')}]|"
            + self.pick(
                "sort", "sort(true)", "sort(false, true)", "unique|list", "map(`upper`)|list", "map(`length`)|list"
            ),
            lambda: f"{e('list')}|map('{inner()}')|list",
            lambda: f"rows|map(attribute='{self.pick('name', 'age', 'tags', 'nope', 'name.0')}'"
            f"{self.pick('', ', default=0')})|list",
            lambda: f"{e('list')}|{self.pick('select', 'reject')}|list",
            lambda: f"{e('list')}|{self.pick('select', 'reject')}('"
            f"{self.pick('odd', 'string', 'number', 'none', 'defined', 'mapping', 'even')}')|list",
            lambda: f"{e('list')}|{self.pick('select', 'reject')}('"
            f"{self.pick('eq', 'ne', 'gt', 'in', 'equalto', '==', '>')}', {e('any')})|list",
            lambda: f"rows|{self.pick('selectattr', 'rejectattr')}('{self.pick('name', 'age', 'tags', 'nope')}'"
            f"{self.pick('', ', `eq`, 30', ', `defined`', ', `in`, [25]')})|map(attribute='name')|list",
            lambda: f"{e('list')}|batch({self.pick('1', '2', '3', '2, 0', '0')})|list",
            lambda: f"{e('list')}|slice({self.pick('1', '2', '3', '2, 9')})|list",
            lambda: f"{e('str')}.split("
            f"{self.pick('', repr(','), repr(' '), repr('X'), repr(',') + ', 1', 'none, 1', 'maxsplit=1', e('str'))}"
            f")",
            lambda: f"{e('str')}.rsplit({self.pick('', repr(','), repr('o') + ', 1', 'none, 1')})",
            lambda: f"{e('str')}.splitlines({self.pick('', 'true')})",
            lambda: f"{e('str')}.{self.pick('partition', 'rpartition')}({e('str')})",
            lambda: f"{e('str')}|list",
            lambda: f"range({self.pick('0', '3', '5', '2, 6', '5, 0, -2', '-3')})|list",
            lambda: f"range({e('int')}, {e('int')}, {e('int')}){self.slice(0)}|list",
            lambda: f"{e('dict')}|"
            + self.pick(
                "dictsort", "items|list", "list", "dictsort(true)", "dictsort(false, `value`)", "dictsort(reverse=true)"
            ),
            lambda: f"{e('dict')}.{self.pick('items', 'keys', 'values')}()|list",
            lambda: f"rows|groupby('{self.pick('age', 'name', 'tags')}')",
            lambda: f"rows|groupby('{self.pick('age', 'nope')}', default=1)|map('first')|list",
            lambda: f"rows|sort(attribute='{self.pick('age', 'name', 'age,name', 'nope')}')|map(attribute='name')|list",
            lambda: f"{e('list')}|sum(start=[])",
            lambda: self.common(d, "list"),
            lambda: f"{e('list')}.copy()",
            lambda: f"dict(a={e('any')}).values()|list",
        )()

    def x_dict(self, d):
        e = lambda k: self.e(d, k)
        return self.pick(
            lambda: f"{{{e('str')}: {e('any')}}}",
            lambda: f"{{{e('str')}: {e('any')}, {e('any')}: {e('any')}}}",
            lambda: f"dict(a={e('any')}, b={e('any')})",
            lambda: f"dict({e('dict')}, z={e('any')})",
            lambda: f"dict([({e('str')}, {e('any')})])",
            lambda: self.common(d, "dict"),
            lambda: f"{e('dict')}.copy()",
            lambda: f"dict({e('list')})",
        )()

    def x_any(self, d):
        e = lambda k: self.e(d, k)
        k = self.pick("int", "float", "str", "list", "dict", "bool")
        if self.r.random() < 0.7:
            return self.expr(d, k)
        return self.pick(
            lambda: f"{e('any')}.{self.pick('a', 'b', 'items', 'x', 'name', 'get', 'upper', 'nope')}",
            lambda: f"{self.wrap(e('any'))}[{e('any')}]",
            lambda: f"({e('any')} {self.pick('+', '-', '*', '/', '//', '%', '**')} {self.leaf('any')})",
            lambda: f"{e('any')}|"
            + self.pick(
                "first",
                "last",
                "length",
                "list",
                "max",
                "min",
                "sum",
                "sort",
                "int",
                "float",
                "round",
                "abs",
                "join",
                "items",
                "reverse",
                "attr(`x`)",
                "unique",
                "tojson",
                "title",
                "upper",
                "trim",
                "default",
            ),
            lambda: f"{e('any')} is {self.pick(*TESTS0)}",
            lambda: f"{e('dict')}.get({e('any')}, {e('any')})",
            lambda: f"{e('any')}|attr('{self.pick('a', 'real', 'items', '__class__', 'append')}')",
            lambda: f"({e('any')} < {e('any')})",
            lambda: f"{e('list')}.{self.pick('append(1)', 'pop()', 'sort()')}",
            lambda: f"{e('any')}()",
        )()

    # ---- templates ----

    def space(self):
        return self.pick("", "", " ", "\n", "  \n ", "\n\n", "\t", "x", " y ")

    def tag(self, body):
        return f"{{%{self.pick('', '', '-', '+')} {body} {self.pick('', '', '-', '+')}%}}"

    def out(self, text):
        return f"{{{{{self.pick('', '', '-')} {text} {self.pick('', '', '-')}}}}}"

    def template(self, depth=2, loop=False):
        parts = []
        for _ in range(self.r.randint(1, 4)):
            parts += [self.space(), self.statement(depth, loop), self.space()]
        return "".join(parts)

    def statement(self, d, loop):
        if d <= 0:
            return self.simple(loop)
        body = lambda lp=loop: self.template(d - 1, lp)
        tag = self.tag
        return self.pick(
            lambda: self.simple(loop),
            lambda: self.simple(loop),
            lambda: tag(
                f"for {self.pick('x', 'k, v', 'i')} in {self.expr(1, self.pick('list', 'list', 'dict', 'str'))}"
                f"{self.pick('', '', ' if x', ' if loop')}"
            )
            + body(True)
            + self.pick("", tag("else") + body())
            + tag("endfor"),
            lambda: tag(
                f"for x in "
                + self.pick(
                    "l", "sl", "rows", "messages", "range(4)", "u", "l|select", "ml if x", "range(5) if x is odd"
                )
            )
            + self.loop_out()
            + body(True)
            + tag("endfor"),
            lambda: tag(f"for k, v in {self.expr(1, 'dict')}{self.pick('.items()', '|items', '|dictsort')}")
            + self.out("k ~ '=' ~ v")
            + body(True)
            + tag("endfor"),
            lambda: tag("for x in [1, [2, [3]], 4] recursive")
            + self.out("loop.depth ~ (loop(x) if x is iterable else x)")
            + tag("endfor"),
            lambda: tag(f"if {self.expr(2, 'bool')}")
            + body()
            + self.pick("", tag(f"elif {self.expr(1, 'any')}") + body())
            + self.pick("", tag("else") + body())
            + tag("endif"),
            lambda: tag(f"set {self.pick('x', 's', 'y')}") + body(False) + tag("endset") + self.out("x ~ y"),
            lambda: tag(f"macro m({self.pick('', 'a', 'a, b=1', 'a=s', 'a, b=a')})")
            + self.out(self.pick("a", "b", "x", "varargs", "kwargs", "caller()", "i", "caller is defined"))
            + body(False)
            + tag("endmacro")
            + self.out(f"m({self.pick('', '1', '1, 2', 'a=3', '1, 2, 3', 'b=2, a=1', 'c=1')})"),
            lambda: tag(f"macro m(a)")
            + "["
            + self.out("caller(a)")
            + "]"
            + tag("endmacro")
            + tag(f"call({self.pick('x', 'x, y=2', '')}) m({self.expr(1)})")
            + body(False)
            + self.out("x")
            + tag("endcall"),
            lambda: tag(f"filter {self.pick('upper', 'trim', 'indent(2)', 'replace(`a`, `b`)', 'length', 'e|upper')}")
            + body()
            + tag("endfilter"),
            lambda: tag(f"with {self.pick('x=1', 'x=s, y=x', 'i=i+1', '')}")
            + body()
            + self.out("x ~ y ~ i")
            + tag("endwith"),
            lambda: tag("generation") + body(False) + tag("endgeneration"),
            lambda: tag(f"set ns = namespace({self.pick('v=0', 'v=s', 'v=[]')})")
            + tag(f"for x in {self.expr(1, 'list')}")
            + tag(f"set ns.v = {self.pick('x', 'ns.v ~ x', 'ns.v + [x]', 'loop.index')}")
            + body(True)
            + tag("endfor")
            + self.out("ns.v"),
            lambda: tag("raw") + self.pick("{{ x }}", " {% if %} \n", "\n{#") + tag("endraw"),
            lambda: tag("block " + self.pick("b1", "b2", "b3")) + body(False) + tag("endblock"),
        )()

    def loop_out(self):
        return self.out(
            self.pick(
                "loop.index",
                "loop.index0",
                "loop.revindex",
                "loop.revindex0",
                "loop.first",
                "loop.last",
                "loop.length",
                "loop.previtem",
                "loop.nextitem",
                "loop.cycle('a', 'b')",
                "loop.changed(x)",
                "loop.depth",
                "loop",
                "loop.nope",
                "x",
                "x.role",
                "x.name",
            )
        )

    def simple(self, loop):
        tag = self.tag
        options = [
            lambda: self.out(self.expr(self.r.randint(0, 3))),
            lambda: self.out(self.expr(self.r.randint(0, 2))),
            lambda: tag(f"set {self.pick('x', 'y', 'i', 's')} = {self.expr(2)}"),
            lambda: tag(
                f"set {self.pick('x, y', '(x, y)', 'a, b')} = {self.pick('1, 2', '[1, 2]', self.expr(1, 'list'))}"
            ),
            lambda: self.out(
                self.pick("x", "y", "x ~ y", "i", "s", "a", "k", "v", "loop.index", "undef", "caller", "m")
            ),
            lambda: f"{{#{self.pick('', '-', '+')} c {{{{ {self.pick('', '-', '+')}#}}",
            lambda: tag("print " + self.expr(1)),
            lambda: "\n  ",
            lambda: "text\n",
        ]
        if loop:
            options += [
                lambda: tag(self.pick("break", "continue")),
                lambda: self.loop_out(),
                lambda: tag("if x") + tag(self.pick("break", "continue")) + tag("endif"),
            ]
        return self.r.choice(options)()

    def broken(self):
        """A template with a few characters changed: what is a syntax error, and what is not."""
        t = list(self.template(1))
        for _ in range(self.r.randint(1, 3)):
            at = self.r.randrange(len(t) + 1)
            kind = self.r.random()
            if kind < 0.4 and t:
                del t[min(at, len(t) - 1)]
            elif kind < 0.7:
                t.insert(at, self.pick(*"{}%#-+()[]'\"|.,=~ \n:abi0_"))
            else:
                t.insert(
                    at,
                    self.pick(
                        "{%",
                        "%}",
                        "{{",
                        "}}",
                        "{#",
                        "#}",
                        "-%}",
                        "{%-",
                        " if ",
                        " in ",
                        " is ",
                        " not ",
                        "endif",
                        "else",
                        "set x",
                        "**",
                        "//",
                    ),
                )
        return "".join(t)

    def case(self):
        kind = self.r.random()
        if kind < 0.55:
            return "{{ " + self.expr(3) + " }}"
        return self.template(2) if kind < 0.9 else self.broken()
