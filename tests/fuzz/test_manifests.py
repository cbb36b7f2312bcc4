from __future__ import annotations

import json
from pathlib import Path

import pytest

from resprout import artifacts
from resprout.types import Student, Teacher
from tests.fuzz.conftest import Fuzz
from tests.fuzz.mutation import changed, changed_json
from tests.resprout.sealing import sealed


@pytest.fixture
def student(tiny_teacher: Teacher, tiny_student: Student, tmp_path: Path) -> Path:
    artifacts.save_teacher(tiny_teacher, tmp_path / "teacher")
    artifacts.save_student(tiny_student, tmp_path / "student", inputs={"teacher": tmp_path / "teacher"})
    return tmp_path / "student"


def test_any_manifest_is_read_or_refused(fuzz: Fuzz, student: Path) -> None:
    path = student / "manifest.json"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        artifacts.check(student)
        artifacts.record_of("student", student)

    valid = json.loads(path.read_text())
    fuzz(changed_json(valid), read)
    fuzz(changed(valid).map(lambda fields: sealed(fields).encode()), read)
