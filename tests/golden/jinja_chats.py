"""Random conversations for real chat templates: mostly as a client would send them, some odd, some wrong."""

import random

TEXTS = [
    "Hi",
    "",
    " ",
    "\n",
    "What is 2 + 2?",
    "  leading and trailing \n",
    "Grüße, 日本 😀",
    "<think>\nhm\n</think>\n\nYes.",
    "</think>x",
    "<think>",
    "<|im_end|>",
    "<tool_response>\n1\n</tool_response>",
    '{"a": "<b> & \'c\'"}',
    "[TOOL_CALLS]",
    "a\r\nb\tc",
    "line\nline\n",
    "{{ x }} {% y %}",
]
KEYS = ["city", "n", "é", "a b", "type", "items", "x"]


class Random:
    def __init__(self, seed):
        self.r = random.Random(seed)

    def chance(self, p):
        return self.r.random() < p

    def text(self):
        return " ".join(self.r.choice(TEXTS) for _ in range(self.r.choice((1, 1, 1, 2))))

    def value(self, depth=2):
        kind = self.r.randrange(9 if depth else 6)
        if kind < 2:
            return self.text()
        if kind < 6:
            return self.r.choice((0, -7, 123456789, 1.5, 1e-7, 1e22, True, False, None))
        if kind == 6:
            return [self.value(depth - 1) for _ in range(self.r.randrange(3))]
        return {self.r.choice(KEYS): self.value(depth - 1) for _ in range(self.r.randrange(4))}

    def schema(self, depth=2):
        one = {"type": self.r.choice(("string", "integer", "number", "boolean", "array", "object", ["string", "null"]))}
        if self.chance(0.6):
            one["description"] = self.text()
        if self.chance(0.2):
            one["enum"] = [self.value(0) for _ in range(self.r.randint(1, 3))]
        if self.chance(0.2):
            one["default"] = self.value(1)
        if one["type"] == "array" and self.chance(0.8):
            one["items"] = self.schema(depth - 1) if depth else {"type": "string"}
        if one["type"] == "object" and self.chance(0.8):
            one["properties"] = {
                self.r.choice(KEYS): self.schema(depth - 1) for _ in range(self.r.randrange(3) if depth else 0)
            }
            if self.chance(0.5):
                one["required"] = list(one["properties"])
        return one

    def tool(self):
        parameters = {
            "type": "object",
            "properties": {self.r.choice(KEYS): self.schema() for _ in range(self.r.randrange(4))},
        }
        if self.chance(0.7):
            parameters["required"] = list(parameters["properties"])[:1]
        function = {
            "name": self.r.choice(("get_weather", "add", "f")),
            "description": self.text(),
            "parameters": parameters,
        }
        if self.chance(0.1):
            function["return"] = self.schema(0)
        if self.chance(0.1):
            del function[self.r.choice(("description", "parameters"))]
        return function if self.chance(0.1) else {"type": "function", "function": function}

    def call(self):
        arguments = {self.r.choice(KEYS): self.value() for _ in range(self.r.randrange(4))}
        call = {
            "name": self.r.choice(("get_weather", "add")),
            "arguments": '{"a": 1}' if self.chance(0.3) else arguments,
        }
        if self.chance(0.1):
            return call
        out = {"type": "function", "function": call}
        if self.chance(0.7):
            out["id"] = self.r.choice(("abcdefghi", "call_1", "123456789", 7))
        return out

    def content(self):
        p = self.r.random()
        if p < 0.94:
            return self.text()
        if p < 0.96:
            return None
        parts = [{"type": "text", "text": self.text()} for _ in range(self.r.randrange(3))]
        if self.chance(0.3):
            parts.insert(0, {"type": self.r.choice(("image", "image_url"))})
        return parts

    def message(self, role):
        m = {"role": role, "content": self.content()}
        if role == "assistant":
            if self.chance(0.25):
                m["tool_calls"] = [self.call() for _ in range(self.r.choice((1, 1, 2, 0)))]
                if self.chance(0.6):
                    m["content"] = self.r.choice((None, ""))
            if self.chance(0.15):
                m["reasoning_content"] = self.text()
        if role == "tool":
            if self.chance(0.6):
                m["tool_call_id"] = self.r.choice(("abcdefghi", "call_1", "123456789"))
            if self.chance(0.4):
                m["name"] = "get_weather"
        if self.chance(0.01):
            del m["content"]
        return m

    def messages(self):
        if self.chance(0.03):
            return [self.message(self.r.choice(("user", "assistant"))) for _ in range(self.r.randrange(2))]
        roles = ["system"] if self.chance(0.4) else []
        for _ in range(self.r.randint(1, 3)):
            roles += ["user", "assistant"]
            if self.chance(0.3):
                roles += ["tool"] * self.r.randint(1, 2) + ["assistant"]
        roles = roles[: -1 if self.chance(0.7) else None]
        if self.chance(0.15):
            roles.insert(
                self.r.randrange(len(roles) + 1),
                self.r.choice(("system", "tool", "developer", "odd", "user", "ipython")),
            )
        return [self.message(role) for role in roles]

    def variables(self):
        v = {
            "messages": self.messages(),
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "pad_token": "<pad>",
        }
        if self.chance(0.8):
            v["add_generation_prompt"] = self.chance(0.6)
        if self.chance(0.4):
            v["tools"] = [self.tool() for _ in range(self.r.randrange(3))] if self.chance(0.9) else None
        if self.chance(0.15):
            v["enable_thinking"] = self.chance(0.5)
        if self.chance(0.1):
            v["documents"] = [{"title": self.text(), "text": self.text()} for _ in range(self.r.randrange(3))]
        if self.chance(0.1):
            v["date_string"] = self.text()
        if self.chance(0.1):
            v[self.r.choice(("tools_in_user_message", "thinking", "controls", "xml_tools", "builtin_tools"))] = (
                self.value(1)
            )
        return v
