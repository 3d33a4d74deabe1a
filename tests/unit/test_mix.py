"""Loops and instruction classes read off small assembly texts, written by hand."""

from __future__ import annotations

import pytest

from autotune.compiler.mix import AMDGCN, PTX, hottest_loop

# Outer loop BB0_1 around BB0_2 (the one with matrix work); BB0_4 is longer, without any.
NESTED_PTX = """
.version 8.7
.visible .entry kernel(.param .u64 a)
{
	.reg .b32 %r<9>;
	ld.global.b32 %r1, [%rd1];
$L__BB0_1:
	add.s32 %r2, %r2, 1;
	bar.sync 0;
$L__BB0_2:                              // =>  This Inner Loop
	.loc	1 40 12
	@%p1 cp.async.cg.shared.global [ %r3 + 0 ], [ %rd3 + 0 ], 0x10, %r4;
	cp.async.commit_group ;
	cp.async.wait_group 0x2;
	bar.sync 	0;
	ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r5, %r6, %r7, %r8}, [%r3];
	ld.shared.v4.b32 {%r1, %r2, %r3, %r4}, [%r5];
	mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 { %f1 }, { %r1 }, { %r2 }, { %f1 };
	mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 { %f2 }, { %r1 }, { %r2 }, { %f2 };
	ex2.approx.ftz.f32 %f3, %f4;
	shfl.sync.bfly.b32 %r1, %r2, 16, 31, -1;
	fma.rn.f32 %f5, %f6, %f7, %f8;
	max.f32 	%f5, %f6, %f7;
	cvt.rn.bf16x2.f32 %r1, %f5, %f6;
	mov.b32 %r1, %r2;
	shl.b32 %r1, %r2, 4;
	setp.lt.s32 %p2, %r1, %r2;
	st.shared.b32 [%r1], %r2;
	@!%p1 ld.global.v4.b32 { %r1, %r2, %r3, %r4 }, [ %rd1 + 0 ];
	@%p1 st.global.b32 [ %rd1 + 0 ], { %r1 };
	prefetch.global.L2 [%rd1];
	@%p2 bra $L__BB0_2;
	bra.uni $L__BB0_3;
$L__BB0_3:
	@%p3 bra 	$L__BB0_1;
$L__BB0_4:
""" + "\tadd.f32 %f1, %f1, %f2;\n" * 60 + """	@%p4 bra $L__BB0_4;
	ret;
}
"""  # fmt: skip

GCN = """
kernel:
	s_load_dwordx4 s[0:3], s[4:5], 0x0
	s_cbranch_scc1 .LBB0_3
.LBB0_1:                                ; %loop
                                        ; =>This Inner Loop Header: Depth=1
	s_waitcnt vmcnt(0)
	s_barrier
	buffer_load_dwordx4 v[0:3], v4, s[0:3], 0 offen
	global_load_dwordx4 v[0:3], v[4:5], off
	ds_write_b128 v6, v[0:3]
	ds_read_b128 v[0:3], v7
	ds_bpermute_b32 v1, v2, v3
	v_mfma_f32_32x32x8_bf16_1k a[0:15], v[0:1], v[2:3], a[0:15]
	v_exp_f32_e32 v1, v2
	v_fma_f32 v1, v2, v3, v4
	v_add_u32_e32 v1, v2, v3
	s_add_i32 s4, s4, 1
	global_store_dword v[0:1], v2, off
	s_nop 1
	s_cbranch_scc0 .LBB0_1
.LBB0_3:
	s_endpgm
"""


def test_the_innermost_loop_with_most_matrix_work_wins() -> None:
    mix = hottest_loop(NESTED_PTX, PTX)
    assert mix.counts == {
        "mma": 2,
        "load_global": 1,
        "store_global": 1,
        "async_copy": 1,
        "load_shared": 2,
        "store_shared": 1,
        "shuffle": 1,
        "special": 1,
        "float": 3,
        "integer": 2,
        "barrier": 3,
        "other": 1,
    }
    assert mix.mma_flops == 2 * (2 * 16 * 8 * 16)


def test_amd_assembly() -> None:
    mix = hottest_loop(GCN, AMDGCN)
    assert mix.counts == {
        "mma": 1,
        "load_global": 2,
        "store_global": 1,
        "load_shared": 1,
        "store_shared": 1,
        "shuffle": 1,
        "special": 1,
        "float": 1,
        "integer": 2,
        "barrier": 2,
    }
    assert mix.mma_flops == 2 * 32 * 32 * 8


def loop(label: int, *body: str) -> str:
    """A PTX loop around some instructions."""
    return "\n".join((f"$L__BB0_{label}:", *body, f"@%p1 bra $L__BB0_{label};"))


def test_without_matrix_work_the_longest_loop_wins() -> None:
    text = "\n".join((loop(1, *["add.f32 %f1, %f1, %f2;"] * 3), loop(2, "add.s32 %r1, %r1, 1;")))
    assert hottest_loop(text, PTX).counts == {"float": 3}


def test_a_warp_group_instruction_is_shared_by_four_warps() -> None:
    code = "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%f1}, %rd1, %rd2, 1, 1, 1, 0, 0;"
    mix = hottest_loop(loop(1, code), PTX)
    assert mix.counts == {"mma": 1}
    assert mix.mma_flops == 2 * 64 * 128 * 16 // 4


def test_matrix_instructions_without_a_shape_still_mark_the_main_loop() -> None:
    main = loop(1, "tcgen05.mma.cta_group::1.kind::f16 [ %r1 + 0 ], %rd1, %rd2, %r2, %p1;")
    epilogue = loop(2, *["add.f32 %f1, %f1, %f2;"] * 5)
    assert hottest_loop(f"{main}\n{epilogue}", PTX).counts == {"mma": 1}


# As LLVM lays a loop out: the end of it first, entered by the branch to BB0_2; an out-of-the-way
# block that joins BB0_3 from below; behind the loop a jump back to the program's end.
ROTATED_GCN = """
	s_branch .LBB0_2
.LBB0_1:
	v_mfma_f32_16x16x16_bf16 v[0:3], v[0:1], v[2:3], v[0:3]
	s_cbranch_scc0 .LBB0_5
.LBB0_2:
	s_cbranch_execnz .LBB0_4
.LBB0_3:
	v_mov_b32_e32 v1, 0
	s_branch .LBB0_1
.LBB0_4:
	global_load_dword v1, v[2:3], off
	s_cbranch_execz .LBB0_3
	s_branch .LBB0_1
.LBB0_5:
	s_cbranch_vccz .LBB0_7
.LBB0_6:
	s_endpgm
.LBB0_7:
	v_mfma_f32_16x16x16_bf16 v[0:3], v[0:1], v[2:3], v[0:3]
	v_mfma_f32_16x16x16_bf16 v[0:3], v[0:1], v[2:3], v[0:3]
	s_branch .LBB0_6
"""


def test_a_branch_back_that_its_target_does_not_lead_to_is_no_loop() -> None:
    mix = hottest_loop(ROTATED_GCN, AMDGCN)
    assert mix.counts == {"mma": 1, "load_global": 1, "integer": 1}


# The rare path of the loop stands behind the program's end, and jumps back into the middle; the
# loop around it has its only branch back there, too.
OUT_OF_THE_WAY_GCN = """
.LBB0_1:
	s_add_i32 s1, s1, 1
.LBB0_2:
	global_load_dword v1, v[2:3], off
	s_cbranch_vccnz .LBB0_5
.LBB0_3:
	v_mfma_f32_16x16x16_bf16 v[0:3], v[0:1], v[2:3], v[0:3]
	s_cbranch_scc0 .LBB0_2
	s_cbranch_scc1 .LBB0_6
.LBB0_4:
	global_store_dword v[0:1], v2, off
	s_endpgm
.LBB0_5:
	ds_read_b128 v[0:3], v7
	s_branch .LBB0_3
.LBB0_6:
	s_cbranch_vccz .LBB0_1
	s_branch .LBB0_4
"""


def test_a_block_out_of_the_way_belongs_to_its_loop_and_the_end_to_none() -> None:
    mix = hottest_loop(OUT_OF_THE_WAY_GCN, AMDGCN)
    assert mix.counts == {"mma": 1, "load_global": 1, "load_shared": 1}


def test_two_branches_back_make_one_loop() -> None:
    text = "\n".join(
        (
            "$L__BB0_1:",
            "add.f32 %f1, %f1, %f2;",
            "@%p1 bra $L__BB0_1;",
            "add.s32 %r1, %r1, 1;",
            "@%p2 bra $L__BB0_1;",
        )
    )
    assert hottest_loop(text, PTX).counts == {"float": 1, "integer": 1}


@pytest.mark.parametrize(
    "text",
    ["", "ret;", "bra $L__BB0_1;\n$L__BB0_1:\n\tadd.f32 %f1, %f1, %f2;\n\tret;"],
    ids=["nothing", "straight", "forward"],
)
def test_no_loop_no_mix(text: str) -> None:
    mix = hottest_loop(text, PTX)
    assert mix.counts == {}
    assert mix.mma_flops == 0
