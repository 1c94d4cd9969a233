"""Linux's boot on a CPU: golden numbers of real kernels, and the paths on which they give up."""

import pytest

from fpstate import cpu as cpus
from fpstate.cpu.conclude import conclude
from fpstate.cpu.dump import BootLog, Dump, Registers
from fpstate.cpu.flags import FLAGS
from fpstate.cpu.model import Cpu
from fpstate.linux.abi import permission_errno, user_abi
from fpstate.linux.boot import boot
from fpstate.linux.config import BootConfig
from fpstate.linux.kvm import kvm_view
from fpstate.linux.policy import find

Subleaves = dict[int, Registers]


def booted(name: str, policy: str = "linux-6.18", cmdline: str = "") -> BootConfig:
    return boot(cpus.by_name(name), find(policy), cmdline)


def made(subleaves: Subleaves, flags: str, *, top: int = 0x20) -> Cpu:
    """Return a CPU with these sub-leaves of 0DH and these flags."""
    registers: dict[tuple[int, int], list[int]] = {(0, 0): [top, 0, 0, 0], (1, 0): [0] * 4, (7, 0): [1, 0, 0, 0]}
    registers[7, 1] = [0] * 4
    for name in ("FPU FXSR XMM XMM2 " + flags).split():
        flag = FLAGS[name]
        registers[flag.leaf, flag.subleaf][flag.register] |= 1 << flag.bit
    leaves: dict[tuple[int, int], Registers] = {k: (r[0], r[1], r[2], r[3]) for k, r in registers.items()}
    leaves |= {(0xD, i): r for i, r in subleaves.items()}
    return conclude(Dump(format="test", leaves=leaves), name="made", source="test")


AVX: Subleaves = {0: (7, 832, 832, 0), 1: (0xF, 832, 0, 0), 2: (256, 576, 0, 0)}
CET: Subleaves = {
    0: (7, 832, 832, 0),
    1: (0xF, 872, 0x1800, 0),
    2: (256, 576, 0, 0),
    11: (16, 0, 1, 0),
    12: (24, 0, 1, 0),
}


# -- golden data: the Zen 4 virtual machine of linux-fpu.md section 12, kernel 6.18.44 -------------------------------

LIVE = made(
    {
        0: (0xE7, 0x980, 0x980, 0),
        1: (0xF, 0x9A8, 0x1800, 0),
        2: (0x100, 0x240, 0, 0),
        5: (0x40, 0x340, 0, 0),
        6: (0x200, 0x380, 0, 0),
        7: (0x400, 0x580, 0, 0),
        11: (0x10, 0, 1, 0),
        12: (0x18, 0, 1, 0),
    },
    "XSAVE AVX AVX512F SHSTK",
)


def test_the_merged_kernel_keeps_cet_s_out_of_tasks_and_in_guests() -> None:
    config = boot(LIVE, find("linux-6.18"))
    assert (config.kernel.max_features, config.kernel.default_features) == (0x18E7, 0x8E7)
    assert (config.guest.features, config.user.max_features) == (0x18E7, 0xE7)
    assert (config.kernel.max_size, config.kernel.default_size, config.guest.size) == (2472, 2448, 2472)
    assert (config.user.max_size, config.user.default_size) == (2432, 2432)
    assert (config.task_xcomp_bv, config.guest_xcomp_bv) == (0x80000000000008E7, 0x80000000000018E7)


def test_the_boot_log_is_the_kernels_own_character_for_character() -> None:
    assert boot(LIVE, find("linux-6.18")).boot_log == (
        "x86/fpu: Supporting XSAVE feature 0x001: 'x87 floating point registers'",
        "x86/fpu: Supporting XSAVE feature 0x002: 'SSE registers'",
        "x86/fpu: Supporting XSAVE feature 0x004: 'AVX registers'",
        "x86/fpu: Supporting XSAVE feature 0x020: 'AVX-512 opmask'",
        "x86/fpu: Supporting XSAVE feature 0x040: 'AVX-512 Hi256'",
        "x86/fpu: Supporting XSAVE feature 0x080: 'AVX-512 ZMM_Hi256'",
        "x86/fpu: Supporting XSAVE feature 0x800: 'Control-flow User registers'",
        "x86/fpu: Supporting XSAVE feature 0x1000: 'Control-flow Kernel registers (KVM only)'",
        "x86/fpu: xstate_offset[2]:  576, xstate_sizes[2]:  256",
        "x86/fpu: xstate_offset[5]:  832, xstate_sizes[5]:   64",
        "x86/fpu: xstate_offset[6]:  896, xstate_sizes[6]:  512",
        "x86/fpu: xstate_offset[7]: 1408, xstate_sizes[7]: 1024",
        "x86/fpu: xstate_offset[11]: 2432, xstate_sizes[11]:   16",
        "x86/fpu: xstate_offset[12]: 2448, xstate_sizes[12]:   24",
        "x86/fpu: Enabled xstate features 0x18e7, context size is 2472 bytes, using 'compacted' format.",
        "signal: max sigframe size: 3376",
    )


def test_before_feb_2025_the_guest_buffer_was_sized_by_the_user_format() -> None:
    config = boot(LIVE, find("linux-6.7"))
    assert (config.kernel.max_features, config.guest.size, config.guest.allocated) == (0x8E7, 2448, 2432)
    assert kvm_view(config).overrun == 16


def test_user_space_sees_the_user_sizes() -> None:
    abi = user_abi(boot(LIVE, find("linux-6.18")))
    assert (abi.frame.xfeatures, abi.frame.xstate_size, abi.frame.extended_size) == (0xE7, 2432, 2436)
    assert (abi.minsigstksz, abi.regset_size, abi.altstack_min) == (3376, 2432, 2048)
    assert (abi.frame_dynamic, abi.altstack_min_permitted) == (None, None)


# -- Sapphire Rapids, the worked example of linux-fpu.md 3.4 ---------------------------------------------------------


def test_amx_is_dynamic_and_xtilecfg_is_not() -> None:
    config = booted("sapphire-rapids")
    assert (config.kernel.max_features, config.kernel.default_features) == (0x61EE7, 0x20EE7)
    assert (config.user.max_size, config.user.default_size) == (11008, 2816)
    assert (config.kernel.max_size, config.kernel.default_size, config.guest.size) == (10752, 2560, 2560)
    assert (config.xcr0, config.xfd) == (0x602E7, 0x40000)


def test_lbr_is_enabled_in_xss_and_in_no_fpstate() -> None:
    config = booted("sapphire-rapids")
    assert config.xss == 0x9C00
    assert not (config.kernel.max_features | config.guest.features) >> 15 & 1


def test_amx_frames_and_stacks_are_those_of_a_real_boot() -> None:
    # realkernel: AT_MINSIGSTKSZ 11952, frame 2816 and 11008 once a tile was used, smallest altstack 11837
    abi = user_abi(booted("sapphire-rapids"))
    assert abi.minsigstksz == 11952
    assert abi.frame_dynamic is not None
    assert (abi.frame.xstate_size, abi.frame_dynamic.xstate_size) == (2816, 11008)
    assert abi.altstack_min_permitted == 11837
    assert (abi.xcomp_supp, abi.xcomp_perm, abi.xcomp_guest_perm) == (0x602E7, 0x202E7, 0x202E7)


@pytest.mark.parametrize(
    ("number", "errno"),
    # realkernel bochsx_spr_amx, REQ_PERM
    [(0, 95), (2, 95), (9, 95), (17, 95), (18, 0), (19, 95), (20, 22), (40, 22), (63, 22), (1 << 40, 22)],
)
def test_a_permission_request_fails_as_the_kernels_does(number: int, errno: int) -> None:
    assert permission_errno(booted("sapphire-rapids"), number) == errno


def test_kvm_offers_amx_only_with_permission() -> None:
    view = kvm_view(booted("sapphire-rapids"))
    assert (view.cap_xsave2, view.cap_xsave2_permitted) == (4096, 11008)
    assert view.permitted_xcr0 == 0x2E7, "XTILECFG goes with XTILEDATA"


# -- saving follows the buffer, restoring follows the machine --------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "save", "guest_save", "restore", "guest_restore"),
    # linux-fpu.md 2.4 with M = 0x8e7
    [
        ("linux-6.7", 0x8E7, 0x8E7, 0x8E7, 0x8E7),
        ("cet-v8", 0x8E7, 0x18E7, 0x18E7, 0x18E7),
        ("linux-6.18", 0x8E7, 0x18E7, 0x18E7, 0x18E7),
        ("default-on", 0x18E7, 0x18E7, 0x18E7, 0x18E7),
        ("independent", 0x8E7, 0x8E7, 0x8E7, 0x8E7),
        ("raw-msr", 0x8E7, 0x8E7, 0x8E7, 0x8E7),
        ("resident", 0x8E7, 0x18E7, 0x8E7, 0x18E7),
    ],
)
def test_each_policy_moves_what_the_debate_says(
    policy: str, save: int, guest_save: int, restore: int, guest_restore: int
) -> None:
    config = boot(LIVE, find(policy))
    assert (config.save_rfbm, config.guest_save_rfbm) == (save, guest_save)
    assert (config.restore_rfbm, config.guest_restore_rfbm) == (restore, guest_restore)


@pytest.mark.parametrize(
    ("policy", "xss"),
    [
        ("linux-6.7", 0x800),
        ("cet-v8", 0x1800),
        ("linux-6.12", 0x800),
        ("linux-6.16", 0x800),
        ("linux-6.18", 0x1800),
        ("default-on", 0x1800),
        ("independent", 0x1800),
        ("raw-msr", 0x800),
        ("resident", 0x1800),
    ],
)
def test_the_hosts_xss_is_what_the_policy_manages_or_lends(policy: str, xss: int) -> None:
    assert boot(LIVE, find(policy)).xss == xss


def test_pkru_is_saved_and_never_restored() -> None:
    config = booted("genoa")
    assert config.save_rfbm >> 9 & 1
    assert not config.restore_rfbm >> 9 & 1


# -- the command line ------------------------------------------------------------------------------------------------


def test_noxsaves_takes_supervisor_state_and_amx_and_leaves_the_compacted_format() -> None:
    # realkernel bochsx_spr_amx_noxsaves: features 0x2e7, 2440 bytes, compacted
    config = booted("sapphire-rapids", cmdline="noxsaves")
    assert (config.kernel.max_features, config.kernel.max_size, config.compacted) == (0x2E7, 2440, True)
    assert (config.xss, config.xfd) == (0, 0)
    assert (config.save_instruction, config.restore_instruction) == ("XSAVEC", "XRSTOR")


def test_noxsave_falls_back_to_fxsave_and_its_frame() -> None:
    config = booted("sapphire-rapids", cmdline="noxsave")
    assert config.boot_log == ("x86/fpu: x87 FPU will use FXSAVE", "signal: max sigframe size: 1440")
    assert config.fate == "fxsave"
    assert config.xsave_disabled == "XSAVE is cleared by the command line: noxsave"
    abi = user_abi(config)
    assert (abi.frame.xfeatures, abi.frame.xstate_size, abi.frame.extended_size) == (0, 512, 516)
    assert (abi.regset_size, abi.xcomp_supp & 3, abi.xcomp_perm) == (None, 3, 0)


@pytest.mark.parametrize(
    ("cmdline", "features"),
    [
        ("clearcpuid=avx", 0x61E03),
        ("clearcpuid=avx512f", 0x61E07),
        ("clearcpuid=pku", 0x61CE7),
        ("nopku", 0x61CE7),
        ("clearcpuid=519", 0x606E7),
        ("clearcpuid=324", 0x1EE7),
        ("clearcpuid=shstk", 0x61EE7),
        ("clearcpuid=xfd", 0x61EE7),
        ("clearcpuid=avx,amx_tile", 0x1E03),
        ("clearcpuid=enqcmd", 0x61AE7),
        ("noxsaveopt", 0x61EE7),
        ("quiet -- nopku", 0x61EE7),
        ("clearcpuid=avx clearcpuid=pku", 0x61CE7),
        ("clearcpuid=ospke", 0x61EE7),
        ("noxsaves=", 0x61EE7),
        ("setcpuid=avx", 0x61EE7),
    ],
)
def test_clearcpuid_takes_what_depends_on_the_flag(cmdline: str, features: int) -> None:
    assert booted("sapphire-rapids", cmdline=cmdline).kernel.max_features == features


@pytest.mark.parametrize("cmdline", ["noxsave", "quiet -- noxsave", 'foo="a noxsave b"', "clearcpuid=xsave"])
def test_noxsave_counts_wherever_it_stands_between_spaces(cmdline: str) -> None:
    # the FPU code looks for it before parameters are parsed (cmdline_find_option_bool)
    assert booted("sapphire-rapids", cmdline=cmdline).fate == "fxsave"


def test_fxsr_is_required_so_that_clearing_it_leaves_fxsave() -> None:
    config = booted("genoa", cmdline="clearcpuid=fxsr")
    assert (config.fate, config.kernel.max_size, config.save_instruction) == ("fxsave", 512, "FXSAVE")


def test_without_an_fpu_the_kernel_halts() -> None:
    config = booted("genoa", cmdline="clearcpuid=fpu")
    assert (config.fate, config.boot_log) == (
        "panic",
        ("x86/fpu: Giving up, no FPU found and no math emulation present",),
    )


def test_a_flag_without_a_name_says_which_number_to_use() -> None:
    assert booted("sapphire-rapids", cmdline="clearcpuid=shstk").assumptions == (
        "clearcpuid=shstk has no effect: the kernel has no name for it; use clearcpuid=519",
    )


def test_strict_sas_size_raises_the_smallest_stack_and_only_without_the_equals_sign() -> None:
    assert user_abi(booted("genoa", cmdline="strict_sas_size=on")).altstack_min == 2048
    assert user_abi(booted("genoa", cmdline="strict_sas_sizeon")).altstack_min > 2048


# -- paths on which the kernel gives up ------------------------------------------------------------------------------


def test_a_size_that_disagrees_disables_xsave_with_both_numbers() -> None:
    config = boot(made({**AVX, 1: (0xF, 900, 0, 0)}, "XSAVE AVX"), find("linux-6.18"))
    assert config.xsave_disabled == "XSAVE consistency problem: size 832 != kernel_size 900"
    assert config.boot_log == (config.xsave_disabled, "x86/fpu: XSAVE disabled")


def test_with_debug_fpu_the_disable_path_panics_and_without_it_falls_back() -> None:
    cpu = made({**AVX, 1: (0xF, 900, 0, 0)}, "XSAVE AVX")
    assert boot(cpu, find("linux-6.18")).fate == "panic"
    fallen = boot(cpu, find("linux-6.18"), debug_fpu=False)
    assert (fallen.fate, fallen.kernel.max_features, fallen.kernel.max_size, fallen.xcr0) == ("fxsave", 0, 512, 0)
    assert fallen.boot_log[-1] == "signal: max sigframe size: 1440"


def test_before_6_16_the_disable_path_falls_back_and_prints_no_line_of_its_own() -> None:
    config = boot(made({**AVX, 1: (0xF, 900, 0, 0)}, "XSAVE AVX"), find("linux-6.12"))
    assert config.fate == "fxsave"
    assert "x86/fpu: XSAVE disabled" not in config.boot_log


def test_a_missing_sse_bit_disables_xsave() -> None:
    config = boot(
        made({0: (5, 832, 832, 0), 1: (0xF, 832, 0, 0), 2: (256, 576, 0, 0)}, "XSAVE AVX"), find("linux-6.18")
    )
    assert config.xsave_disabled == "x86/fpu: FP/SSE not present amongst the CPU's xstate features: 0x5."


def test_apx_with_mpx_disables_xsave_from_6_16() -> None:
    subleaves = {
        0: (0x8001F, 1088, 1088, 0),
        1: (0xF, 1088, 0, 0),
        2: (256, 576, 0, 0),
        3: (64, 960, 0, 0),
        4: (64, 1024, 0, 0),
        19: (128, 960, 0, 0),
    }
    cpu = made(subleaves, "XSAVE AVX MPX APX")
    disabled = boot(cpu, find("linux-6.18")).xsave_disabled
    assert disabled == "x86/fpu: Both APX/MPX present in the CPU's xstate features: 0x8001f."
    assert boot(cpu, find("linux-6.12")).xsave_disabled is None


def test_a_component_larger_than_its_struct_is_named_in_the_log() -> None:
    cpu = made({0: (7, 848, 848, 0), 1: (0xF, 832, 0, 0), 2: (272, 576, 0, 0)}, "XSAVE AVX")
    assert boot(cpu, find("linux-6.18")).boot_log == (
        "[AVX registers]: struct is 256 bytes, cpu state 272 bytes",
        "XSAVE consistency problem: size 848 != kernel_size 832",
        "x86/fpu: XSAVE disabled",
    )


def test_partial_avx512_panics_at_xsetbv() -> None:
    cpu = made({**AVX, 0: (0x27, 1152, 1152, 0), 5: (64, 1088, 0, 0)}, "XSAVE AVX AVX512F")
    config = boot(cpu, find("linux-6.18"))
    assert (config.fate, config.boot_log) == ("panic", ())
    assert str(config.panic).startswith("general protection fault at XSETBV of 0x27: AVX-512")


def test_amx_without_xfd_drops_tiles_alone_and_panics() -> None:
    subleaves = {**AVX, 0: (0x60007, 11008, 11008, 0), 17: (64, 2752, 2, 0), 18: (8192, 2816, 2, 0)}
    config = boot(made(subleaves, "XSAVE AVX AMX_TILE"), find("linux-6.18"))
    assert "XSETBV of 0x20007" in str(config.panic)


def test_xsave_with_too_low_a_maximum_leaf_is_dropped() -> None:
    config = boot(made(AVX, "XSAVE AVX", top=0xB), find("linux-6.18"))
    assert config.fate == "fxsave"
    assert "no CPUID level 0xd" in str(config.xsave_disabled)


def test_lbr_that_cpuid_does_not_enumerate_broke_kernels_before_aug_2024() -> None:
    cpu = made(CET, "XSAVE AVX SHSTK ARCH_LBR")
    assert "WRMSR of 0x8800 to IA32_XSS" in str(boot(cpu, find("linux-6.7")).panic)
    assert boot(cpu, find("linux-6.12")).fate == "xsave"


def test_v8_sets_bit_11_without_asking_cpuid() -> None:
    config = boot(made(AVX, "XSAVE AVX IBT"), find("cet-v8"))
    assert "lacks 0x800" in str(config.panic)
    assert boot(made(AVX, "XSAVE AVX IBT"), find("linux-6.18")).fate == "xsave"


def test_a_wrong_current_size_is_taken_for_the_regset_without_a_word() -> None:
    config = boot(made({**AVX, 0: (7, 900, 832, 0)}, "XSAVE AVX"), find("linux-6.18"))
    abi = user_abi(config)
    assert config.fate == "xsave"
    assert (abi.regset_size, abi.frame.xstate_size) == (900, 832)


def test_a_tile_palette_that_disagrees_is_logged_and_not_acted_on() -> None:
    # an AMX guest of 2025 whose leaf 1DH was all zero
    base = cpus.by_name("sapphire-rapids")
    leaves = {**base.leaves, (0x1D, 0): (0, 0, 0, 0)}
    config = boot(conclude(Dump(format="test", leaves=leaves), name="guest", source="test"), find("linux-6.18"))
    assert config.boot_log[0] == "XFEATURE_XTILE_DATA: calculated size is 0 bytes, cpu state 8192 bytes"
    assert config.fate == "xsave"


def test_zen_1_and_2_save_with_xsavec_for_erratum_1386() -> None:
    assert (booted("zen2").save_instruction, booted("zen3").save_instruction) == ("XSAVEC", "XSAVES")


def test_zen_2_loses_pkru_for_want_of_the_pku_flag() -> None:
    assert not booted("zen2").kernel.max_features >> 9 & 1


def test_a_cpu_without_xsave_boots_with_fxsave() -> None:
    # realkernel qemu72_Nehalem
    config = booted("nehalem")
    assert config.boot_log == ("x86/fpu: x87 FPU will use FXSAVE", "signal: max sigframe size: 1440")
    assert config.xsave_disabled == "the CPU has no XSAVE (CPUID.1:ECX[26] = 0)"


def test_flags_that_a_source_lacks_are_taken_from_the_components_and_said_so() -> None:
    leaf_d_only = {key: r for key, r in cpus.by_name("genoa").leaves.items() if key[0] == 0xD}
    config = boot(conclude(Dump(format="test", leaves=leaf_d_only), name="d", source="test"), find("linux-6.18"))
    assert config.kernel.max_features == 0x1AE7
    assert config.assumptions[0].startswith("CPU flags not in the source, taken as set: ")


def test_pkru_flagged_as_supervisor_boots_and_drops_out_of_the_frame() -> None:
    subleaves = {0: (0x207, 2696, 2696, 0), 1: (0xF, 840, 0, 0), 2: (256, 576, 0, 0), 9: (8, 2688, 1, 0)}
    config = boot(made(subleaves, "XSAVE AVX PKU"), find("linux-6.18"))
    assert (config.fate, config.kernel.max_features) == ("xsave", 0x207)
    assert (config.user.max_size, config.user.default_size) == (2696, 832)


def test_a_moved_offset_is_accepted_and_the_cpus_total_kept() -> None:
    subleaves = {0: (0x207, 2696, 2696, 0), 1: (0xF, 840, 0, 0), 2: (256, 576, 0, 0), 9: (8, 3000, 0, 0)}
    config = boot(made(subleaves, "XSAVE AVX PKU"), find("linux-6.18"))
    assert (config.user.max_size, config.user.default_size) == (2696, 3008)


def test_one_missing_alignment_flag_of_amx_is_hidden_by_the_other_and_two_are_not() -> None:
    base = cpus.by_name("sapphire-rapids")
    one = {**base.leaves, (0xD, 17): (64, 2752, 0, 0)}
    both = {**one, (0xD, 18): (8192, 2816, 4, 0)}
    hidden = boot(conclude(Dump(format="test", leaves=one), name="made", source="test"), find("linux-6.18"))
    assert (hidden.fate, hidden.kernel.max_size) == ("xsave", 10752)
    shown = boot(conclude(Dump(format="test", leaves=both), name="made", source="test"), find("linux-6.18"))
    assert shown.xsave_disabled == "XSAVE consistency problem: size 10744 != kernel_size 10752"


# -- recorded in whatever state --------------------------------------------------------------------------------------


def altered(name: str, changes: dict[int, Registers]) -> BootConfig:
    leaves = {**cpus.by_name(name).leaves, **{(0xD, i): r for i, r in changes.items()}}
    return boot(conclude(Dump(format="test", leaves=leaves), name="altered", source="test"), find("linux-6.18"))


@pytest.mark.parametrize("ebx0", [0, 256, 900, 3000, 20000])
@pytest.mark.parametrize("ebx1", [576, 0x988, 0x9B0])
def test_a_wrong_current_size_is_accepted_in_whichever_state_the_dump_was_taken(ebx0: int, ebx1: int) -> None:
    # what real kernels did: accepted without a word
    config = altered("tiger-lake", {0: (0x2E7, ebx0, 0xA88, 0), 1: (0xF, ebx1, 0x3900, 0)})
    assert (config.fate, config.kernel.max_size) == ("xsave", 2480)


def test_without_xsavec_the_current_size_is_the_kernels_and_must_agree() -> None:
    config = altered("haswell", {0: (7, 576, 832, 0), 2: (264, 576, 0, 0)})
    assert config.xsave_disabled == "XSAVE consistency problem: size 840 != kernel_size 832"


def test_a_moved_offset_leaves_the_total_that_the_cpu_states() -> None:
    config = altered("tiger-lake", {0: (0x2E7, 576, 0xA88, 0), 1: (0xF, 576, 0x3900, 0), 9: (8, 3000, 0, 0)})
    assert (config.user.max_size, config.user.default_size) == (2696, 3008)


def test_pkru_of_64_bytes_is_zen_2s_alone() -> None:
    config = altered("tiger-lake", {0: (0x2E7, 576, 0xA88, 0), 1: (0xF, 576, 0x3900, 0), 9: (64, 2688, 0, 0)})
    assert config.xsave_disabled == "XSAVE consistency problem: size 2536 != kernel_size 2480"


def test_a_user_component_in_xss_faults_at_xsetbv() -> None:
    config = altered("zen4", {0: (0xE7, 0x980, 0x980, 0), 1: (0xF, 0x988, 0x1A00, 0), 9: (8, 0, 1, 0)})
    assert "XSETBV of 0x2e7: CPUID.0DH.0 does not enumerate 0x200" in str(config.panic)


def test_a_supervisor_component_without_xsaves_disables_xsave() -> None:
    leaves = {**cpus.by_name("tiger-lake").leaves, (0xD, 9): (8, 2688, 1, 0)}
    cpu = conclude(Dump(format="test", leaves=leaves), name="altered", source="test")
    config = boot(cpu, find("linux-6.18"), "noxsaves")
    assert config.xsave_disabled == ("XSAVE consistency problem: Got supervisor feature 9, but XSAVES not advertised")


def test_sizes_consistently_altered_are_believed() -> None:
    # AVX of 248 bytes, and everything (2e7 | 3900) summed with it: 2616 - 8
    everything = cpus.by_name("tiger-lake").compacted_size(0x2E7 | 0x3900)
    config = altered(
        "tiger-lake", {0: (0x2E7, 0xA88, 0xA88, 0), 1: (0xF, everything - 8, 0x3900, 0), 2: (248, 576, 0, 0)}
    )
    assert (config.fate, config.kernel.max_size) == ("xsave", 2472)


def test_a_wrong_current_size_does_not_reach_the_frame_of_permitted_amx() -> None:
    config = altered("sapphire-rapids", {0: (0x602E7, 20000, 11008, 0)})
    abi = user_abi(config)
    assert abi.frame_dynamic is not None
    assert (abi.regset_size, abi.frame_dynamic.xstate_size, abi.altstack_min_permitted) == (20000, 11008, 11837)


def test_the_disable_path_leaves_permissions_and_independent_features_alone() -> None:
    leaves = {**cpus.by_name("sapphire-rapids").leaves, (0xD, 1): (0x1F, 900, 0xDD00, 0)}
    cpu = conclude(Dump(format="test", leaves=leaves), name="altered", source="test")
    config = boot(cpu, find("linux-6.18"), debug_fpu=False)
    assert config.kernel.independent_features == 0x8000
    assert user_abi(config).xcomp_perm == 0x202E7


def test_a_failed_write_of_xss_harms_only_a_kernel_that_manages_supervisor_state() -> None:
    leaves = {**cpus.by_name("alder-lake").leaves, (0xD, 1): (0xF, 0x3C0, 0x100, 0)}
    cpu = conclude(Dump(format="test", leaves=leaves), name="altered", source="test")
    config = boot(cpu, find("linux-6.7"))
    assert (config.fate, config.xss) == ("xsave", 0)


def test_kvm_offers_cet_all_or_not_at_all() -> None:
    half = {**cpus.by_name("zen4").leaves, (0xD, 1): (0xF, 0x990, 0x800, 0)}
    cpu = conclude(Dump(format="test", leaves=half), name="altered", source="test")
    assert kvm_view(boot(cpu, find("linux-6.18"))).supported_xss == 0
    assert kvm_view(booted("zen4")).supported_xss == 0x1800
    assert kvm_view(booted("zen4", "linux-6.17")).supported_xss == 0, "the KVM part came one release later"
    assert kvm_view(booted("genoa", "independent", "clearcpuid=519")).supported_xss == 0


def test_a_boot_log_with_amx_had_xfd() -> None:
    # bootlogs: Xeon Platinum 8480 under 6.9-rc4, features 0x60ee7, 10752 bytes
    components = {
        2: (576, 256), 5: (832, 64), 6: (896, 512), 7: (1408, 1024), 9: (2432, 8),
        10: (2440, 8), 11: (2448, 16), 17: (2496, 64), 18: (2560, 8192),
    }  # fmt: skip
    log = BootLog(0x60EE7, 10752, compacted=True, components=components)
    config = boot(conclude(Dump(format="log", boot_log=log), name="log", source="test"), find("linux-6.12"))
    assert (config.fate, config.kernel.max_features, config.kernel.max_size) == ("xsave", 0x60EE7, 10752)


def test_a_dump_of_amx_without_sub_leaf_1_does_not_panic() -> None:
    leaves = {key: r for key, r in cpus.by_name("sapphire-rapids").leaves.items() if key != (0xD, 1)}
    config = boot(conclude(Dump(format="test", leaves=leaves), name="partial", source="test"), find("linux-6.18"))
    assert config.fate == "xsave"
    assert config.kernel.max_features >> 17 & 3 == 3
