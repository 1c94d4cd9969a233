"""Policies as data: the shipped ones, a user's own, and what is refused."""

import pathlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fpstate.errors import FpstateError, UnreadableInput, UsageError
from fpstate.linux.policy import Policy, find, for_release, load_file, shipped, table


@pytest.mark.parametrize(
    ("name", "user", "supervisor", "fpstate"),
    # linux-fpu.md 2.1
    [
        ("linux-6.7", 0x602FF, 0xC00, 0x60CFF),
        ("cet-v8", 0x602FF, 0x1C00, 0x61CFF),
        ("linux-6.12", 0x602FF, 0xC00, 0x60CFF),
        ("linux-6.18", 0xE02FF, 0x1C00, 0xE1CFF),
    ],
)
def test_the_compile_time_sets_are_the_kernels(name: str, user: int, supervisor: int, fpstate: int) -> None:
    policy = find(name)
    assert (policy.user, policy.supervisor_supported, policy.fpstate) == (user, supervisor, fpstate)
    assert (policy.user_dynamic, policy.kvm_xcr0) == (0x40000, 0x602FF)


@pytest.mark.parametrize("policy", shipped().values(), ids=str)
def test_a_component_has_one_home(policy: Policy) -> None:
    homes = (policy.user, policy.supervisor, policy.guest_only, policy.independent, policy.raw_msr, policy.unsupported)
    assert sum(mask.bit_count() for mask in homes) == (sum(homes)).bit_count()


@pytest.mark.parametrize("policy", shipped().values(), ids=str)
def test_every_policy_says_where_it_comes_from(policy: Policy) -> None:
    assert policy.source
    assert policy.title


@pytest.mark.parametrize(
    ("release", "name", "remark"),
    [
        ("6.18.44-fc-v669", "linux-6.18", None),
        ("6.17.0-rc5-next-20250912", "linux-6.17", None),
        ("6.9.12", "linux-6.7", None),
        ("7.2.13+deb14-amd64", "linux-6.18", None),
        ("6.16.0", "linux-6.16", None),
        ("6.12.107", "linux-6.12", None),
        ("6.7.0", "linux-6.7", None),
        (
            "5.15.0-91-generic",
            "linux-6.7",
            "kernel 5.15.0-91-generic is older than 6.6: linux-6.7 is the nearest policy",
        ),
        ("7.9", "linux-6.18", "kernel 7.9 is newer than 7.2: linux-6.18 is the nearest policy"),
    ],
)
def test_a_release_has_a_policy(release: str, name: str, remark: str | None) -> None:
    policy, said = for_release(release)
    assert (policy.name, said) == (name, remark)


@pytest.mark.parametrize("release", ["", "next", "6", "v6.18", "unknown"])
def test_what_is_no_release_is_refused(release: str) -> None:
    with pytest.raises(UsageError, match="is not a kernel release"):
        for_release(release)


def test_an_unknown_policy_names_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"^'linux-5.0' is not a policy; policies are linux-6.7, cet-v8, "):
        find("linux-5.0")


def test_a_policy_of_ones_own_builds_on_a_shipped_one(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[lazy]\nbase = "linux-6.18"\ntitle = "PASID for guests alone"\nsupervisor = ["CET_U"]\n'
                    'guest_only = ["CET_S", "PASID"]\n')  # fmt: skip
    policy = load_file(str(file))["lazy"]
    assert (policy.supervisor, policy.guest_only) == (0x800, 0x1400)
    assert policy.user == find("linux-6.18").user


def test_a_users_policy_joins_the_shipped_ones(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[mine]\nbase = "resident"\n')
    assert [*table(str(file))] == [*shipped(), "mine"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[a]\nbase = "b"\n', "policy a builds on 'b', which is not a policy"),
        ('[a]\nbase = "a"\n', "policy a builds on itself"),
        ('[a]\nbase = "b"\n[b]\nbase = "a"\n', "builds on itself"),
        ('[a]\nuser = ["AVX"]\n', 'policy a lacks .*; take it from another: base = "linux-6.18"'),
        ('[a]\nbase = "linux-6.18"\nusr = []\n', "policy a has the unknown key 'usr'"),
        ('[a]\nbase = "linux-6.18"\nuser = ["AVY"]\n', "policy a, user: 'AVY' is not a component"),
        ('[a]\nbase = "linux-6.18"\nuser = [7.5]\n', "7.5 must be the name of a component"),
        ('[a]\nbase = "linux-6.18"\nsupervisor = ["CET_S"]\n', "puts component 12 into supervisor and guest_only"),
        ('[a]\nbase = "linux-6.18"\nuser_dynamic = ["PT"]\n', "user_dynamic component 8 is not in user"),
        ('[a]\nbase = "linux-6.18"\nrestores_guest_only = "never"\n', "must be always or guest, not 'never'"),
        ('[a]\nbase = "linux-6.18"\nxfeature_max = "many"\n', "xfeature_max must be a number"),
        ('[a]\nbase = "linux-6.18"\nxfeature_max = 99\n', "xfeature_max must be 2 to 63, not 99"),
        ('[a]\nbase = "linux-6.18"\ndisable_line = 1\n', "disable_line must be true or false, not 1"),
        ('[a]\nbase = "linux-6.18"\ntitle = 1\n', "title must be text, not 1"),
        ('[a]\nbase = "linux-6.18"\ngates = { "CET" = "X" }\n', "'CET' must name one component"),
        ('[a]\nbase = "linux-6.18"\ngates = { AVX = ["y"] }\n', r"gates.AVX must be text, not \['y'\]"),
        ('[a]\nbase = "linux-6.18"\nforced = { AVX = 1 }\n', "forced.AVX must be a list of flags, not 1"),
        ('[a]\nbase = "linux-6.18"\ngates = { AVX = "AVXX" }\n', "policy a names 'AVXX', which is no CPU flag"),
        ('[a]\nbase = "linux-6.18"\nforced = { AVX = ["shstk"] }\n', "policy a names 'shstk', which is no CPU flag"),
        ('[a]\nbase = "linux-6.18"\nforced = { AVX = "SHSTK" }\n', "forced.AVX must be a list of flags"),
        ("[linux-6.18]\ntitle = 'mine'\n", r'a name with a dot needs quotes: \["linux-6.18"\]'),
        ("a = 1\n", "a must be a table"),
        ("# nothing yet\n", r'holds no policy; give one as a table: \["my-policy"\]'),
        ("[a\n", "is not a TOML file of policies"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused_by_key(tmp_path: pathlib.Path, text: str, message: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(FpstateError, match=message):
        load_file(str(file))


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00",
        b"\x00" * 100,
        b"a = " + b"9" * 5000,
        b"a = " + b"[" * 100_000,
        b"a = " + b"{a=" * 100_000,
        b".".join([b"a"] * 20_000) + b" = 1",
        b"#" * ((1 << 20) + 1),
    ],
    ids=["latin", "zeros", "digits", "lists", "tables", "dots", "large"],
)
def test_a_file_that_is_no_toml_is_unreadable(tmp_path: pathlib.Path, content: bytes) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes(content)
    with pytest.raises(UnreadableInput):
        load_file(str(file))


def test_a_missing_file_is_unreadable() -> None:
    with pytest.raises(UnreadableInput, match=r"^cannot read nowhere\.toml: No such file or directory"):
        load_file("nowhere.toml")


VALUES = st.one_of(st.booleans(), st.integers(), st.text(max_size=5), st.just([]), st.just(["AVX"]), st.just({}))
KEYS = ["user", "gates", "forced", "boot_strings", "objections", "base", "xfeature_max", "title", "since", "kvm_xss"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))
def test_no_values_make_a_traceback(tmp_path: pathlib.Path, row: dict[str, object]) -> None:
    import json

    lines = [f"{key} = {json.dumps(value) if not isinstance(value, dict) else '{}'}" for key, value in row.items()]
    file = tmp_path / "mine.toml"
    file.write_text("[a]\n" + "\n".join(lines) + "\n")
    try:
        load_file(str(file))
    except FpstateError:
        return
