"""The schema: what holds for every knob."""

from pydantic import BaseModel

from sstplb.config import describe
from sstplb.config.schema import Config


def test_every_knob_says_why() -> None:
    def walk(model: type[BaseModel]) -> None:
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name} has no description"
            inner, _ = describe.model_of(field)
            if inner is not None:
                walk(inner)

    walk(Config)
