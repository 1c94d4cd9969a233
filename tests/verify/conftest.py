from __future__ import annotations

import pytest

pytest.importorskip("z3", reason="z3 is missing: pip install fpstate[verify]")
pytest.importorskip("numpy", reason="NumPy is missing: pip install fpstate[verify]")
