"""FAULTS: every known fault. To add one: a function that plants it (plant_*.py), and a line here.

`files` and `golden` lie beside the model file, `contract` is what is promised of it; the others are in what it computes.
"""

from toolkit.faults import plant_contract as contract
from toolkit.faults import plant_files as files
from toolkit.faults import plant_graph as graph
from toolkit.faults import plant_preprocessing as pre
from toolkit.faults import plant_weights as numbers
from toolkit.faults.fault import BOTH, COREML, EVERY, ONNX, Fault

CONV = "conv"
MEAN = ("the mean", "mean and standard deviation")
STD = ("the standard deviation", "mean and standard deviation")
_TABLE = (
    # files
    Fault("truncated-file", "files", EVERY, files.spoil_largest(files.first_two_thirds, "sha256", signed=False), "a copy that broke off"),
    Fault("truncated-file-signed", "files", EVERY, files.spoil_largest(files.first_two_thirds, "truncated", "cut", "damaged", signed=True),
          "an exporter that ran out of disk, and signed what it had"),
    Fault("flipped-bit", "files", EVERY, files.spoil_largest(files.one_bit_flipped, "sha256", signed=False), "a bad disk or a bad cable"),
    Fault("missing-weights", "files", EVERY, files.lose_weights, "weights left out by .gitignore or by a packaging rule"),
    Fault("missing-golden", "files", EVERY, files.lose_golden, "a copy of the model without what proves it"),
    Fault("unlisted-file", "files", EVERY, files.lose_manifest_line, "a file that the manifest does not know, so nobody checks it"),
    # contract
    Fault("stale-checkpoint", "contract", EVERY, contract.manifest_field("checkpoint_sha256", contract.ANOTHER, "checkpoint"),
          "trained again, and the old export shipped"),
    Fault("another-recipe", "contract", EVERY, contract.manifest_field("recipe_hash", contract.ANOTHER, "recipe"),
          "exported with another recipe than the checkpoint was trained with"),
    Fault("another-model-name", "contract", EVERY, contract.manifest_field("model", "mobilenet-flowers", "mobilenet-flowers"),
          "an artifact copied into another model's folder"),
    Fault("labels-swapped-in-file", "contract", BOTH, contract.file_labels(contract.swap_two), "two class names mixed up in the file"),
    Fault("labels-swapped-in-manifest", "contract", EVERY, contract.manifest_labels(contract.swap_two), "two class names mixed up"),
    Fault("labels-rolled-in-file", "contract", BOTH, contract.file_labels(contract.roll_by_one), "class names counted from 1"),
    Fault("labels-rolled-in-manifest", "contract", EVERY, contract.manifest_labels(contract.roll_by_one), "class names counted from 1"),
    Fault("labels-one-too-many", "contract", BOTH, contract.file_labels(contract.one_more), "the label list of a model with background"),
    Fault("metadata-of-another-model", "contract", BOTH, contract.metadata_of_another_model, "an export script of another project"),
    Fault("metadata-of-another-checkpoint", "contract", BOTH, contract.metadata_of_another_checkpoint, "metadata written before training"),
    Fault("precision-claimed", "contract", EVERY, contract.claim_fp16, "fp32 shipped as fp16: twice the size, and a gate that is too wide"),
    Fault("compression-claimed", "contract", EVERY, contract.manifest_field("compression", "int8", "compression", "compressed"),
          "called compressed, so that only its accuracy is judged"),
    Fault("input-kind-claimed", "contract", COREML, contract.manifest_field("input_kind", "tensor", "tensor", "image"),
          "the app hands over an array where the file takes a picture"),
    Fault("accuracy-claimed", "contract", EVERY, contract.claim_accuracy, "an accuracy that was never measured"),
    Fault("preprocessing-described-wrongly", "contract", EVERY, contract.describe_another_preprocessing,
          "documentation of another data set's mean and std, which the app's authors believe"),
    Fault("input-dtype-claimed", "contract", EVERY, contract.manifest_tensor("inputs", "dtype", "uint8", "uint8", "dtype", "float32"),
          "bytes promised, floats wanted"),
    Fault("output-dtype-claimed", "contract", EVERY, contract.manifest_tensor("outputs", "dtype", "float16", "float16", "dtype"),
          "a buffer of half the size in the app"),
    Fault("input-range-claimed", "contract", EVERY, contract.manifest_tensor("inputs", "high", 1.0, "0..1", "range", "high"),
          "0..1 promised, 0..255 wanted: the app hands over black pictures"),
    Fault("batch-frozen", "contract", ONNX, contract.freeze_batch, "the example's batch of one baked into the graph"),
    Fault("input-size", "contract", BOTH, contract.shrink_input, "exported for pictures of another size"),
    Fault("output-renamed", "contract", BOTH, contract.rename_logits, "an exporter's own name: the app finds no logits"),
    Fault("output-in-fp16", "contract", ONNX, contract.half_output, "outputs of another type than promised"),
    # preprocessing
    Fault("scale-twice", "preprocessing", BOTH, pre.pixels(1 / 255, "scale is applied twice", "1/255"), "x/255 in both app and model"),
    Fault("scale-forgotten", "preprocessing", BOTH, pre.pixels(255, "scale is missing", "1/255"), "x/255 in neither app nor model"),
    Fault("mean-wrong", "preprocessing", BOTH, pre.number("sub", pre.factor(1.5), *MEAN), "a mean typed in wrongly"),
    Fault("mean-on-wrong-scale", "preprocessing", BOTH, pre.number("sub", pre.factor(1 / 255), *MEAN), "a mean of 0..1 taken from pixels"),
    Fault("std-on-wrong-scale", "preprocessing", BOTH, pre.number("mul", pre.factor(1 / 255), *STD), "a std of pixels taken for 0..1"),
    Fault("std-wrong", "preprocessing", BOTH, pre.number("mul", pre.factor(1.25), *STD), "a std typed in wrongly"),
    Fault("another-data-set", "preprocessing", BOTH, pre.statistics_of_another_data_set, "another data set's mean and std"),
    Fault("inverted", "preprocessing", BOTH, pre.picture("affine", "inverted", scale=-1.0, offset=255.0), "dark strokes on a light ground"),
    Fault("transposed-picture", "preprocessing", BOTH, pre.picture("transpose", "transposed"), "width and height mixed up"),
    Fault("mirrored-picture", "preprocessing", BOTH, pre.picture("mirror", "mirrored", "flipped"), "a front camera's picture"),
    Fault("resize-align-corners", "preprocessing", BOTH, pre.align_corners, "the other convention of bilinear resize"),
    Fault("resize-nearest", "preprocessing", BOTH, pre.nearest, "nearest instead of bilinear resize"),
    # layer: numbers
    Fault("channels-swapped", "layer", BOTH, numbers.weights(CONV, 0.5, numbers.swap_channels, bias=lambda bias: bias),
          "output channels of a convolution in another order than the next layer wants"),
    Fault("kernel-transposed", "layer", BOTH, numbers.weights(CONV, 0.4, numbers.transpose_one_kernel), "one kernel's (h, w) as (w, h)"),
    Fault("weights-1-percent", "layer", BOTH, numbers.weights(CONV, 0.6, numbers.times(1.01)), "a layer's scale folded in slightly off"),
    Fault("one-weight", "layer", BOTH, numbers.weights(CONV, 0.0, numbers.largest_becomes(-8.0)), "a flipped bit that was signed"),
    Fault("channel-sign", "layer", BOTH, numbers.weights(CONV, 0.8, numbers.negate_one_channel), "one channel's sign lost in folding"),
    Fault("layers-exchanged", "layer", BOTH, numbers.exchange_two, "two layers of one shape written under each other's name"),
    Fault("batch-norm-dropped", "layer", BOTH, numbers.refolded(None, "batch_norm"), "a convolution exported without its batch-norm"),
    Fault("batch-norm-epsilon", "layer", BOTH, numbers.refolded(1e-2, "epsilon"), "another framework's default epsilon"),
    Fault("nan-weight", "layer", BOTH, numbers.weights(CONV, 0.5, numbers.one_value(float("nan")), "NaN"), "training that diverged"),
    Fault("inf-bias", "layer", BOTH, numbers.infinite_bias, "a bias that left the range of fp16 in a conversion"),
    Fault("bias-missing", "layer", BOTH, numbers.forget_bias, "a convolution exported without its bias"),
    Fault("weights-through-fp16", "layer", BOTH, numbers.all_weights(numbers.through_fp16, "fp16"), "fp32 in name, fp16 in content"),
    Fault("weights-through-bf16", "layer", BOTH, numbers.all_weights(numbers.through_bf16, "bf16"), "saved from a bf16 training copy"),
    Fault("weights-through-int", "layer", BOTH, numbers.weights("linear", 1.0, numbers.through_int), "a cast to int on the way"),
    Fault("weights-through-4-bits", "layer", BOTH, numbers.weights(CONV, 0.5, numbers.through_four_bits), "compressed, and not said"),
    Fault("zero-point-forgotten", "layer", BOTH, numbers.weights(CONV, 0.7, numbers.without_zero_point), "uint8 read back without it"),
    Fault("int8-saturated", "layer", BOTH, numbers.weights(CONV, 0.2, numbers.saturated), "a scale from too small a calibration set"),
    Fault("fp16-overflow", "layer", COREML, graph.overflow, "a layer whose results leave the range of fp16"),
    # layer: graph
    Fault("relu6-for-relu", "layer", BOTH, graph.relu6, "activations cut at 6"),
    Fault("relu-missing", "layer", BOTH, graph.activation("identity", 0.5, "relu missing"), "an activation lost in fusing"),
    Fault("leaky-relu", "layer", BOTH, graph.activation("leaky_relu", 0.0, "leaky", slope=0.1), "another activation"),
    Fault("padding-off-by-one", "layer", BOTH, graph.padding_off_by_one, "TensorFlow's SAME where PyTorch pads both sides"),
    Fault("stride-changed", "layer", BOTH, graph.stride, "another stride, padded until the shapes fitted"),
    Fault("strides-swapped", "layer", BOTH, graph.strides_swapped, "the stride on the other convolution of a block (ResNet v1 and v1.5)"),
    Fault("dilation", "layer", BOTH, graph.dilation, "a dilated kernel, padded until the shapes fitted"),
    Fault("residual-dropped", "layer", BOTH, graph.residual_dropped, "a skip connection lost"),
    Fault("residual-of-itself", "layer", BOTH, graph.residual_of_itself, "an add whose two inputs are the same"),
    Fault("max-pool", "layer", BOTH, graph.max_pool, "maximum instead of mean"),
    Fault("flatten-order", "layer", BOTH, graph.flatten_order, "channels last before the linear layer, channels first in it"),
    # output
    Fault("softmax-axis", "output", BOTH, graph.softmax_axis, "probabilities over the batch instead of the classes"),
    Fault("softmax-missing", "output", BOTH, graph.softmax_missing, "scores named probabilities"),
    Fault("softmax-twice", "output", BOTH, graph.softmax_twice, "logits that are probabilities already"),
    Fault("logits-halved", "output", BOTH, graph.logits_scaled, "a temperature left in: the same classes, less sure"),
    Fault("outputs-swapped", "output", BOTH, graph.outputs_swapped, "logits and probabilities under each other's name"),
    Fault("constant-output", "output", BOTH, graph.constant_output, "an untrained or zeroed last layer: always the same class"),
    # golden
    Fault("golden-rolled", "golden", EVERY, files.roll_golden_logits, "golden logits of the picture before"),
    Fault("golden-of-another-model", "golden", EVERY, files.golden_of_another_model, "golden outputs of another training"),
    Fault("golden-in-fp32", "golden", EVERY, files.golden_in_single_precision, "golden outputs that prove less than they say"),
    Fault("golden-of-few-images", "golden", EVERY, files.golden_of_few_images, "golden outputs cut down to save space"),
    Fault("golden-pixel-nan", "golden", EVERY, files.golden_with_nan, "a golden picture that was never written: nothing equals NaN"),
    Fault("golden-of-one-image", "golden", EVERY, files.golden_of_one_image, "golden outputs that prove one picture only"),
)  # fmt: skip
FAULTS = {fault.id: fault for fault in _TABLE}
