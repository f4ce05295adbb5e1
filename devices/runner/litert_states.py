"""Which caches of a TFLite file can be written to as they lie: what its operators do with them tells."""

import mmap
from typing import Any, Iterable

_PAST, _PRESENT = b"past_key_values", b"present"


def updated_in_place(path: str) -> set[str]:
    """The signatures of a file that do nothing with the caches they take but to write new rows into them.

    A runtime may then be given one buffer for a cache before and after: one DYNAMIC_UPDATE_SLICE is all that reads
    `past_key_values…`, and it gives `present…`.
    """
    from ai_edge_litert import schema_py_generated as schema

    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        model = schema.Model.GetRootAs(content, 0)
        codes = [model.OperatorCodes(i).BuiltinCode() for i in range(model.OperatorCodesLength())]
        updates = {i for i, code in enumerate(codes) if code == schema.BuiltinOperator.DYNAMIC_UPDATE_SLICE}
        definitions = [model.SignatureDefs(i) for i in range(model.SignatureDefsLength())]
        return {
            each.SignatureKey().decode()
            for each in definitions
            if _only_updates(model.Subgraphs(each.SubgraphIndex()), each, updates)
        }


def _only_updates(subgraph: Any, definition: Any, updates: set[int]) -> bool:
    """Whether each cache that a signature takes and gives is read by an update alone."""
    taken = _ports((definition.Inputs(i) for i in range(definition.InputsLength())), _PAST)
    given = _ports((definition.Outputs(i) for i in range(definition.OutputsLength())), _PRESENT)
    wanted = {taken[key]: given[key] for key in taken.keys() & given.keys()}
    found = {}
    for number in range(subgraph.OperatorsLength()):
        operator = subgraph.Operators(number)
        inputs = operator.InputsAsNumpy().tolist() if operator.InputsLength() else []
        for index in wanted.keys() & set(inputs):
            alone = operator.OpcodeIndex() in updates and inputs[0] == index and index not in found
            found[index] = operator.Outputs(0) if alone else None
    return bool(wanted) and found == wanted


def _ports(entries: Iterable[Any], prefix: bytes) -> dict[bytes, int]:
    """The tensors of a signature's caches by what follows the prefix in their names."""
    named = ((entry.Name(), entry.TensorIndex()) for entry in entries)
    return {name[len(prefix) :]: index for name, index in named if name.startswith(prefix)}
