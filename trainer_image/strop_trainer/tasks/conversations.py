"""The shapes in which conversations come, brought to one: a list of messages with role and content.

Read are OpenAI's messages of role and content (also with tools), ShareGPT's turns of from and value, and the
`input_data` that Azure ML's chat endpoints take. Which of the first two it is, the first turn tells, not the column.
"""

from __future__ import annotations

import json
from typing import Any, Final

from strop_trainer.row_files.columns import Columns
from strop_trainer.row_files.problems import kind, shown_names

ROLES: Final = ("system", "user", "assistant", "tool")
OTHER_ROLES: Final = {"developer": "system"}
MESSAGE_FIELDS: Final = ("role", "content")
OF_ROLES: Final = {"assistant": ("tool_calls",), "tool": ("tool_call_id",)}
BESIDE: Final = ("name", "weight")
"""Fields of OpenAI's that any message may have; a tool's name alone is rendered."""
TURN_FIELDS: Final = ("from", "value")
SPEAKERS: Final = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
}
"""Who speaks in ShareGPT's shape → role."""
COLUMNS: Final = Columns(
    (("messages",), ("conversations",), ("input_data",)),
    optional=("tools", "system"),
    structured=frozenset({"messages", "conversations", "input_data", "tools"}),
    elsewhere=tuple(
        (frozenset(names), "task instruction reads such rows")
        for names in (("instruction", "output"), ("prompt", "completion"))
    ),
)

Message = dict[str, Any]
Messages = list[Message]


def check_conversation(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as `messages`, and `tools` where it has some.

    Raises:
        ValueError: field, found and expected of the first thing that is wrong.
    """
    where, messages = _find_messages(row)
    checked = check_messages(where, messages, weighted=True)
    if row.get("system") and checked[0]["role"] != "system":
        if not isinstance(row["system"], str):
            raise ValueError(f"system: found {kind(row['system'])}, expected a string")
        checked.insert(0, {"role": "system", "content": row["system"]})
    roles = [message["role"] for message in checked]
    if "assistant" not in roles:
        raise ValueError(f"{where}: no assistant turn, so that there is nothing to learn")
    if all(message.get("weight", 1) == 0 for message in checked if message["role"] == "assistant"):
        raise ValueError(f"{where}: every assistant turn has weight 0, so that there is nothing to learn")
    tools = row.get("tools")
    if isinstance(tools, str) and tools.strip():
        try:
            tools = json.loads(tools)
        except ValueError as error:
            raise ValueError(f"tools: broken JSON: {error}") from None
    if not tools:
        return {"messages": checked}
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise ValueError(f"tools: found {kind(tools)}, expected a list of objects")
    return {"messages": checked, "tools": tools}


def check_messages(where: str, messages: Any, *, weighted: bool = False) -> Messages:
    """Return messages in their normal form.

    Args:
        where: name of their field.
        messages: as a row has them.
        weighted: whether one of the assistant's may have weight 0, and is not learnt.

    Raises:
        ValueError: one is wrong, or their order is.
    """
    if not isinstance(messages, list):
        raise ValueError(f"{where}: found {kind(messages)}, expected a list")  # noqa: TRY004 - one kind of error
    if not messages:
        raise ValueError(f"{where}: empty, expected at least a user and an assistant message")
    share = _is_share(where, messages[0])
    check = _check_turn if share else _check_message
    checked = [check(f"{where}[{index}]", message) for index, message in enumerate(messages)]
    unlearnt = next((index for index, message in enumerate(checked) if "weight" in message), None)
    if unlearnt is not None and not weighted:
        raise ValueError(f"{where}[{unlearnt}].weight: found 0, allowed: 1, as a pair's answers are compared whole")
    field = "from" if share else "role"
    roles = [message["role"] for message in checked]
    if "system" in roles[1:]:
        found = f"{where}[{roles.index('system', 1)}].{field}"
        raise ValueError(f"{found}: found system, expected it first or not at all")
    if "assistant" in roles and "user" not in roles[: roles.index("assistant")]:
        found = f"{where}[{roles.index('assistant')}].{field}"
        raise ValueError(f"{found}: found assistant, expected a user message before it")
    for index, message in enumerate(checked):
        before = checked[index - 1] if index else {}
        if message["role"] == "tool" and before.get("role") != "tool" and not before.get("tool_calls"):
            raise ValueError(f"{where}[{index}].{field}: found tool, expected an assistant's tool_calls before it")
    return checked


def _find_messages(row: dict[str, Any]) -> tuple[str, Any]:
    given = [name for name in ("messages", "conversations") if name in row]
    for name in given:
        if row[name] is not None:
            return name, _from_text(name, row[name])
    if isinstance(row.get("input_data"), dict):
        return "input_data.input_string", row["input_data"].get("input_string")
    if given:
        return given[0], None
    hint = ""
    if {"instruction", "output"} <= set(row) or {"prompt", "completion"} <= set(row):
        hint = "; task instruction reads such rows"
    raise ValueError(f"messages: missing; found {shown_names(list(row))}, expected {COLUMNS.shown()}{hint}")


def _from_text(where: str, messages: Any) -> Any:
    """Return messages that come as the text of a JSON list as a list."""
    if not isinstance(messages, str) or not messages.lstrip().startswith("["):
        return messages
    try:
        return json.loads(messages)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: broken JSON: {error}") from None


def _is_share(where: str, first: Any) -> bool:
    """Whether messages are of from and value; what the first one does not tell, the column does."""
    if isinstance(first, dict):
        for names, share in ((MESSAGE_FIELDS, False), (TURN_FIELDS, True)):
            if any(name in first for name in names):
                return share
    return where == "conversations"


def _check_message(where: str, message: Any) -> Message:
    if not isinstance(message, dict):
        raise ValueError(f"{where}: found {kind(message)}, expected an object with role and content")  # noqa: TRY004
    calls = message.get("tool_calls") or None
    if calls is not None and message.get("content") is None:
        message = message | {"content": ""}
    for name in MESSAGE_FIELDS:
        if name not in message:
            raise ValueError(f"{where}.{name}: missing; found {shown_names(list(message))}, expected a string")
    role, content = message["role"], _content(f"{where}.content", message["content"])
    if not isinstance(role, str):
        raise ValueError(f"{where}.role: found {kind(role)}, expected a string")  # noqa: TRY004
    role = OTHER_ROLES.get(role, role)
    if role not in ROLES:
        raise ValueError(f"{where}.role: found {role[:40]!r}, allowed: {', '.join(ROLES)}")
    if not content.strip() and calls is None:
        raise ValueError(f"{where}.content: empty, expected text")
    fields = (*MESSAGE_FIELDS, *OF_ROLES.get(role, ()), *BESIDE)
    given = {name: value for name, value in message.items() if value is not None and value != []}
    unknown = sorted(name for name in given if name not in fields)
    if unknown:
        raise ValueError(f"{where}.{unknown[0][:40]}: not known, allowed: {', '.join(fields)}")
    _check_beside(where, given)
    checked: Message = {"role": role, "content": content}
    if calls is not None:
        checked["tool_calls"] = _calls(f"{where}.tool_calls", calls)
    if role == "assistant" and given.get("weight") == 0:
        checked["weight"] = 0
    kept = ("tool_call_id", "name") if role == "tool" else ()
    return checked | {name: given[name] for name in kept if name in given}


def _check_beside(where: str, given: Message) -> None:
    """Check fields that are not rendered."""
    name, weight = given.get("name", ""), given.get("weight", 1)
    if not isinstance(name, str):
        raise ValueError(f"{where}.name: found {kind(name)}, expected a string")  # noqa: TRY004
    if weight not in (0, 1):
        raise ValueError(f"{where}.weight: found {weight}, allowed: 0, 1")


def _content(where: str, content: Any) -> str:
    """Return the text of a message, which may come in parts of type text."""
    if isinstance(content, list) and content and all(isinstance(part, dict) for part in content):
        for index, part in enumerate(content):
            if part.get("type") != "text" or not isinstance(part.get("text"), str):
                raise ValueError(f"{where}[{index}]: found type {str(part.get('type'))[:40]}, expected type text")
        return "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise ValueError(f"{where}: found {kind(content)}, expected a string")  # noqa: TRY004
    return content


def _calls(where: str, calls: Any) -> list[dict[str, Any]]:
    """Return tool calls with their arguments as objects, which is what chat templates render."""
    if not isinstance(calls, list):
        raise ValueError(f"{where}: found {kind(calls)}, expected a list")  # noqa: TRY004
    found = []
    for index, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise ValueError(f"{where}[{index}].function.name: missing, expected the tool's name")  # noqa: TRY004
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except ValueError as error:
                raise ValueError(f"{where}[{index}].function.arguments: broken JSON: {error}") from None
        found.append({"type": "function", "function": {"name": function["name"], "arguments": arguments}})
    return found


def _check_turn(where: str, turn: Any) -> Message:
    """Return a turn of ShareGPT's shape as a message."""
    if not isinstance(turn, dict):
        raise ValueError(f"{where}: found {kind(turn)}, expected an object with from and value")  # noqa: TRY004
    for name in TURN_FIELDS:
        if not isinstance(turn.get(name), str):
            found = kind(turn[name]) if name in turn else f"{shown_names(list(turn))}, but no {name}"
            raise ValueError(f"{where}.{name}: found {found}, expected a string")  # noqa: TRY004
    speaker, value = turn["from"], turn["value"]
    if speaker == "function_call":
        try:
            call = json.loads(value)
        except ValueError as error:
            raise ValueError(f"{where}.value: broken JSON of a function call: {error}") from None
        calls = _calls(f"{where}.value", [{"function": one} for one in (call if isinstance(call, list) else [call])])
        return {"role": "assistant", "content": "", "tool_calls": calls}
    if speaker not in SPEAKERS:
        raise ValueError(f"{where}.from: found {speaker[:40]!r}, allowed: {', '.join([*SPEAKERS, 'function_call'])}")
    if not value.strip():
        raise ValueError(f"{where}.value: empty, expected text")
    return {"role": SPEAKERS[speaker], "content": value}
