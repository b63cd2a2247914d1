"""Optimised HLO as compilers write it, small enough to count by hand."""

# A TPU's: a loop of 5 (its counter goes from 2 to 7) around one whose number nobody knows, a fusion with a convolution
# in it, an asynchronous copy into the vector memory, a sort without an estimate, a collective in the loop.
TPU = """\
HloModule jit_step, is_scheduled=true, entry_computation_layout={(f32[2,16,16,8]{3,2,1,0:T(8,128)})->f32[]}, num_partitions=4

FileNames
1 "step.py"

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[]{:T(128)} parameter(0)
  %b = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%a, %b)
}

%fused_convolution (p0: bf16[2,16,16,8], p1: bf16[3,3,8,32]) -> bf16[2,16,16,32] {
  %p0 = bf16[2,16,16,8]{3,2,1,0:T(8,128)(2,1)} parameter(0)
  %p1 = bf16[3,3,8,32]{3,2,1,0:T(8,128)(2,1)} parameter(1)
  ROOT %conv = bf16[2,16,16,32]{3,2,1,0:T(8,128)(2,1)} convolution(%p0, %p1), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f
}

%less (x: s32[], n: s32[]) -> pred[] {
  %x = s32[]{:T(128)} parameter(0)
  %n = s32[]{:T(128)} parameter(1)
  ROOT %lt = pred[]{:T(512)} compare(%x, %n), direction=LT
}

%body (values: (s32[], bf16[2,16,16,32], f32[64,8])) -> (s32[], bf16[2,16,16,32], f32[64,8]) {
  %values = (s32[]{:T(128)}, bf16[2,16,16,32]{3,2,1,0:T(8,128)(2,1)}, /*index=2*/f32[64,8]{1,0:T(8,128)}) parameter(0)
  %count = s32[]{:T(128)} get-tuple-element(%values), index=0
  %one = s32[]{:T(128)} constant(1)
  %next = s32[]{:T(128)} add(%count, %one)
  %rows = f32[64,8]{1,0:T(8,128)} get-tuple-element(%values), index=2
  %map = bf16[2,16,16,32]{3,2,1,0:T(8,128)(2,1)} get-tuple-element(%values), index=1
  %copy.7 = f32[64,8]{1,0:T(8,128)} copy(%rows), backend_config={"window_config":{"estimated_cycles":"100"}}
  %settled = (pred[], f32[64,8]{1,0:T(8,128)}) while(%start.2), condition=%unsettled, body=%settle, metadata={op_name="jit(step)/jvp(proposals)/while"}
  %summed = f32[64,8]{1,0:T(8,128)} all-reduce(%copy.7), replica_groups={{0,1,2,3}}, to_apply=%add
  ROOT %out = (s32[]{:T(128)}, bf16[2,16,16,32]{3,2,1,0:T(8,128)(2,1)}, f32[64,8]{1,0:T(8,128)}) tuple(%next, %map, %summed)
}

%condition (values.1: (s32[], bf16[2,16,16,32], f32[64,8])) -> pred[] {
  %values.1 = (s32[]{:T(128)}, bf16[2,16,16,32]{3,2,1,0:T(8,128)(2,1)}, f32[64,8]{1,0:T(8,128)}) parameter(0)
  %counter = s32[]{:T(128)} get-tuple-element(%values.1), index=0
  %limit = s32[]{:T(128)} constant(7)
  ROOT %goes_on = pred[]{:T(512)} fusion(%counter, %limit), kind=kLoop, calls=%less
}

%settle (v: (pred[], f32[64,8])) -> (pred[], f32[64,8]) {
  %v = (pred[], f32[64,8]{1,0:T(8,128)}) parameter(0)
  %r = f32[64,8]{1,0:T(8,128)} get-tuple-element(%v), index=1
  %again = pred[] get-tuple-element(%v), index=0
  %step = f32[64,8]{1,0:T(8,128)} negate(%r), backend_config={"window_config":{"estimated_cycles":"10"}}
  ROOT %o = (pred[], f32[64,8]{1,0:T(8,128)}) tuple(%again, %step)
}

%unsettled (v.1: (pred[], f32[64,8])) -> pred[] {
  %v.1 = (pred[], f32[64,8]{1,0:T(8,128)}) parameter(0)
  ROOT %flag = pred[] get-tuple-element(%v.1), index=0
}

%cheap (c: f32[64,8]) -> f32[64,8] {
  ROOT %c = f32[64,8]{1,0:T(8,128)} parameter(0)
}

%dear (d: f32[64,8]) -> f32[64,8] {
  %d = f32[64,8]{1,0:T(8,128)} parameter(0)
  ROOT %e = f32[64,8]{1,0:T(8,128)} exponential(%d), metadata={op_name="jit(step)/transpose(jvp(mask_head))/exp"}, backend_config={"window_config":{"estimated_cycles":"1000"}}
}

ENTRY %main (image: f32[2,16,16,8], kernel: bf16[3,3,8,32], rows.1: f32[64,8]) -> f32[64,8] {
  %image = f32[2,16,16,8]{3,2,1,0:T(8,128)} parameter(0)
  %kernel = bf16[3,3,8,32]{3,2,1,0:T(8,128)(2,1)} parameter(1)
  %rows.1 = f32[64,8]{1,0:T(8,128)} parameter(2)
  %narrow = bf16[2,16,16,8]{3,2,1,0:T(8,128)(2,1)} convert(%image), metadata={op_name="jit(step)/jvp(backbone)/convert"}, backend_config={"window_config":{"estimated_cycles":"50"}}
  %copy-start = (bf16[3,3,8,32]{3,2,1,0:T(8,128)(2,1)S(1)}, bf16[3,3,8,32]{3,2,1,0:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%kernel)
  %copy-done = bf16[3,3,8,32]{3,2,1,0:T(8,128)(2,1)S(1)} copy-done(%copy-start)
  %fusion.1 = bf16[2,16,16,32]{3,2,1,0:T(8,128)(2,1)} fusion(%narrow, %copy-done), kind=kOutput, calls=%fused_convolution, metadata={op_name="jit(step)/jvp(backbone)/conv"}, backend_config={"window_config":{"estimated_cycles":"2000"}}
  %two = s32[]{:T(128)} constant(2)
  %start = (s32[]{:T(128)}, bf16[2,16,16,32]{3,2,1,0:T(8,128)(2,1)}, f32[64,8]{1,0:T(8,128)}) tuple(%two, %fusion.1, %rows.1)
  %while.1 = (s32[]{:T(128)}, bf16[2,16,16,32]{3,2,1,0:T(8,128)(2,1)}, f32[64,8]{1,0:T(8,128)}) while(%start), condition=%condition, body=%body, metadata={op_name="jit(step)/jvp(proposals)/while"}
  %found = f32[64,8]{1,0:T(8,128)} get-tuple-element(%while.1), index=2
  %sorted = f32[64,8]{1,0:T(8,128)} sort(%found), dimensions={0}, to_apply=%less, metadata={op_name="jit(step)/anchor_sampling/top_k"}
  %which = s32[] constant(0)
  ROOT %chosen = f32[64,8]{1,0:T(8,128)} conditional(%which, %sorted, %sorted), branch_computations={%cheap, %dear}
}
"""

# A GPU's calls of libraries: a convolution's gradient by its kernel, and a product.
GPU = """\
HloModule jit_step, is_scheduled=true

ENTRY %main (x: f32[1,16,512,512], g: f32[1,16,512,512], a: f32[64,32], b: f32[32,8]) -> f32[64,8] {
  %x = f32[1,16,512,512]{3,2,1,0} parameter(0)
  %g = f32[1,16,512,512]{3,2,1,0} parameter(1)
  %a = f32[64,32]{1,0} parameter(2)
  %b = f32[32,8]{1,0} parameter(3)
  %filter = (f32[16,16,3,3]{3,2,1,0}, u8[0]{0}) custom-call(%x, %g), window={size=3x3 pad=1_1x1_1}, dim_labels=bf01_oi01->bf01, custom_call_target="__cudnn$convBackwardFilter"
  %other = f32[16,1,512,512]{3,2,0,1} copy(%x)
  ROOT %product = f32[64,8]{1,0} custom-call(%a, %b), custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}
}
"""
