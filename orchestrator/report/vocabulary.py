"""What nearly every report says, for the compression of reports inside programs.

DEFLATE refers back to text that came before; this stands before every report (a preset
dictionary, RFC 1950). The more common a text, the nearer to the end, where references are
shortest. It is part of the format: with another, files made before cannot be read, so that a
change needs another key (see `orchestrator.report.embed`).
"""

_PLAN_WORDS = (
    '"is_delegate":false,"code":"unsupported","conversions":["pins":{"max_partitions":'
    '"missing_kernels":{"measured_ns":"profile":"branch_calls":[{"before":0,"numbers":['
    '"converted":{"unknown":["assumed":true,"tie":true,"advice":[{"kind":"support","text":"ggml '
    'takes ","gain_ns":"remedy":"problem":""kind":"cost","rejections":[{"backend":"xnnpack",'
    '"node":"aten_permute_copy_default","op":"aten.view_copy.default","reason":"notes":["Costs are '
    "estimated from shapes; nothing was measured. They compare plans; real times may be a third "
    'or three times as long."],"alternatives":[{"name":"ggml alone","kind":"single",'
    '"partitions":1,"predicted_ns":},{"name":"xnnpack alone","kind":"single","partitions":1,'
    '"predicted_ns":},{"name":"no delegate","kind":"single","problem":"no kernel here for  ops of '
    'this graph (see `plan`)"},{"name":"greedy: ggml, xnnpack","kind":"greedy","partitions":1,'
    '"predicted_ns":},{"name":"greedy: xnnpack, ggml","kind":"greedy","partitions":1,'
    '"predicted_ns":}],"private_bytes":"kernel_order":["plan":{"solver":"exact","predicted_ns":'
    '"spread_ns":"lower_bound_ns":"gap":0.0,'
)
_GRAPH_WORDS = (
    '"_native_batch_norm_legit_no_training","aten_native_layer_norm_default","aten_mean_dim",'
    '"aten_hardtanh_default","aten_sigmoid_default","aten_gelu_default","aten_mul_Tensor",'
    '"quantized_decomposed_quantize_per_tensor_default",'
    '"quantized_decomposed.dequantize_per_channel.default","torchao_choose_qparams_affine_default",'
    '"torchao.dequantize_affine.default","aten_scaled_dot_product_attention_default",'
    '"aten.add.Tensor","aten_view_copy_default","edges":[{"tensor":"producer":"","consumers":['
    '"aten_convolution_default"],"bytes":"is_output":true"atoms":[{"id":"nodes":["aten_relu_default"],'
    '"ops":["aten.linear.default"],"backend":"ggml","segment":0,"module":"0",'
    '"source":"torch/nn/modules/linear.py:","output":"float32[1,]","costs_ns":{"ggml":,"xnnpack":,'
    '"portable":},"predicted_ns":'
)
_FRAME_WORDS = (
    '{"format":2,"backends":["ggml","xnnpack"],"methods":[{"name":"forward","segments":[{"backend":'
    '"xnnpack","nodes":["aten_convolution_default_1"],"ops":{"aten.convolution.default":1,'
    '"aten.relu.default":1},"inputs":[{"name":"dtype":"float32","shape":[1,],"bytes":"outputs":['
    '{"name":"layout":"channels_last"}],"weight_bytes":,"atoms":["modules":[""],"predicted_ns":'
    '"spread_ns":"atoms_ns":"overhead_ns":"boundary_ns":0.0}]"calls":[0],"versions":{'
    '"executorch-orchestrator":"0.1.0","executorch":"1.5.1","torch":"2.13.0+cpu"}}'
)
VOCABULARY = (_PLAN_WORDS + _GRAPH_WORDS + _FRAME_WORDS).encode()
