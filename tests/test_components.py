"""Components of one's own: what if xfeature 20 were 4 KiB, supervisor, aligned?"""

import pathlib

import pytest

from fpstate import components
from fpstate import cpu as cpus
from fpstate.errors import FpstateError
from fpstate.layout import compacted, standard
from fpstate.linux.boot import boot
from fpstate.linux.policy import table

WIDGET = '[[component]]\nbit = 20\nname = "WIDGET"\nsize = 4096\nsupervisor = true\naligned = true\n'


def written(tmp_path: pathlib.Path, text: str) -> str:
    file = tmp_path / "my.toml"
    file.write_text(text)
    return str(file)


def with_widget(tmp_path: pathlib.Path, text: str = WIDGET) -> cpus.Cpu:
    catalogue, rows = components.load(written(tmp_path, text))
    return cpus.by_name("genoa", catalogue=catalogue).with_components(rows, catalogue)


def test_a_new_component_has_a_name_a_place_and_a_size(tmp_path: pathlib.Path) -> None:
    cpu = with_widget(tmp_path)
    slot = compacted(cpu, cpu.catalogue.parse_mask("all", everything=cpu.mask)).slot(20)
    assert slot is not None
    assert (slot.name, slot.offset % 64, slot.size, slot.origin) == ("WIDGET", 0, 4096, "user")


def test_every_policy_takes_it_into_the_set_of_its_role(tmp_path: pathlib.Path) -> None:
    cpu = with_widget(tmp_path)
    config = boot(cpu, table(None, cpu.catalogue)["linux-6.18"], debug_fpu=False)
    assert config.xsave_disabled == "x86/fpu: init_fpstate buffer too small (4096 < 6592)", "no room in a page"


def test_a_guest_only_component_leaves_tasks_as_they_were(tmp_path: pathlib.Path) -> None:
    cpu = with_widget(tmp_path, WIDGET + 'role = "guest-only"\n')
    config = boot(cpu, table(None, cpu.catalogue)["linux-6.18"])
    assert config.kernel.default_size == 2456
    assert config.guest.size == 2496 + 4096
    assert "x86/fpu: Supporting XSAVE feature 0x100000: 'WIDGET (your component)'" in config.boot_log


def test_a_user_component_goes_behind_everything_in_standard_format(tmp_path: pathlib.Path) -> None:
    cpu = with_widget(tmp_path, "[[component]]\nbit = 20\nsize = 64\n")
    slot = standard(cpu, cpu.mask).slot(20)
    assert slot is not None
    assert (slot.name, slot.offset) == ("bit20", 2496)


def test_a_known_component_can_be_changed(tmp_path: pathlib.Path) -> None:
    cpu = with_widget(tmp_path, "[[component]]\nbit = 12\nsize = 64\n")
    config = boot(cpu, table(None, cpu.catalogue)["linux-6.18"])
    assert config.guest.size - config.kernel.default_size == 64
    assert config.xsave_disabled is None, "the kernel's struct grew with it"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"must hold \[\[component\]\] tables and nothing else"),
        ("x = 1\n", r"must hold \[\[component\]\] tables and nothing else"),
        ("[[component]]\nsize = 1\n", "component 1 must be a table with a number 'bit'"),
        ("[[component]]\nbit = true\n", "component 1 must be a table with a number 'bit'"),
        ("[[component]]\nbit = 20\n", r"component 1 \(bit 20\) must have a 'size' in bytes"),
        ("[[component]]\nbit = 63\nsize = 8\n", "component bit must be 0 to 62, not 63"),
        ("[[component]]\nbit = 1\nsize = 8\n", "bit must be 2 to 62; x87 and SSE are what they are"),
        ("[[component]]\nbit = 20\nsize = 0\n", "size of component 20 must be 1 to 1048576 bytes, not 0"),
        ('[[component]]\nbit = 20\nsize = "8"\n', "size must be a number, not '8'"),
        ("[[component]]\nbit = 20\nsize = 8\ncolour = 1\n", "has the unknown field 'colour'; fields are bit, name"),
        ('[[component]]\nbit = 20\nsize = 8\nrole = "king"\n', "role must be one of user, user-dynamic"),
        ("[[component]]\nbit = 20\nsize = 8\noffset = 9\n", "standard offset of component 20 must be 576 or more"),
        ("[[component]]\nbit = 20\nsize = 8\n[[component]]\nbit = 20\nsize = 8\n", "component 20 is given twice"),
        ("[[component]\n", "is not a TOML file of components"),
    ],
)
def test_a_component_that_cannot_be_meant_is_refused(tmp_path: pathlib.Path, text: str, message: str) -> None:
    with pytest.raises(FpstateError, match=message):
        components.load(written(tmp_path, text))
