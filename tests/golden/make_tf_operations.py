"""Make tf_operations.npz: what TensorFlow computes for each operation that graphs of image flows hold.

Run with Python 3.6 and tensorflow==1.8.0, numpy==1.16.6, protobuf==3.19.6:

    python make_tf_operations.py tf_operations.npz

Each case is a frozen graph of one operation (``NAME/graph``, the bytes of a GraphDef whose placeholders are x0, x1, ... and whose result
is ``out``), its inputs (``NAME/x0``, ...) and what TensorFlow made of them (``NAME/out0``, ...).
"""

import sys

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import graph_util
from tensorflow.python.ops import gen_array_ops, gen_image_ops, gen_linalg_ops, gen_math_ops, gen_nn_ops

random = np.random.RandomState(0)
cases = {}


def images(height=5, width=6, channels=4, count=2):
    return random.normal(size=(count, height, width, channels)).astype(np.float32)


def kernel(*shape):
    return random.normal(size=shape).astype(np.float32)


def case(name, build, *inputs, **options):
    """`build` gets a placeholder per input array, of unknown size if `dynamic`, and returns the result, or a list of results."""
    with tf.Graph().as_default() as graph, tf.Session(graph=graph) as session:
        feeds = []
        for index, array in enumerate(inputs):
            array = np.asarray(array)
            shape = [None] * array.ndim if options.get("dynamic") else array.shape
            feeds.append((tf.placeholder(array.dtype, shape, name="x%d" % index), array))
        results = build(*[each for each, _ in feeds])
        results = list(results) if isinstance(results, (list, tuple)) else [results]
        named = [tf.identity(each, name="out%d" % index) for index, each in enumerate(results)]
        values = session.run(named, {placeholder: array for placeholder, array in feeds})
        frozen = graph_util.extract_sub_graph(graph.as_graph_def(), [each.op.name for each in named])
    cases[name + "/graph"] = np.frombuffer(frozen.SerializeToString(), np.uint8)
    for index, (_, array) in enumerate(feeds):
        cases["%s/x%d" % (name, index)] = array
    for index, value in enumerate(values):
        cases["%s/out%d" % (name, index)] = value


x = images()
positive = np.abs(x) + 0.1
channel = kernel(4)
for name in [
    "abs",
    "ceil",
    "cos",
    "exp",
    "expm1",
    "floor",
    "neg",
    "relu",
    "relu6",
    "rint",
    "round",
    "sigmoid",
    "sign",
    "sin",
    "softplus",
    "softsign",
    "square",
    "tan",
    "tanh",
    "erf",
    "elu",
    "selu",
]:
    function = getattr(tf, name if hasattr(tf, name) else "negative") if name != "neg" else tf.negative
    function = getattr(tf.nn, name) if name in ("relu", "relu6", "softplus", "softsign", "elu", "selu") else function
    case(name, function, x)
case("round halves", tf.round, np.array([-1.5, -0.5, 0.5, 1.5, 2.5], np.float32))
for name in ["log", "log1p", "rsqrt", "sqrt", "reciprocal"]:
    case(name, getattr(tf, name), positive)
case("inv", gen_math_ops._inv if hasattr(gen_math_ops, "_inv") else gen_math_ops.inv, positive)
for name in ["add", "subtract", "multiply", "divide", "maximum", "minimum", "squared_difference", "realdiv"]:
    case(name, getattr(tf, name), x, channel)
    case(name + " map", getattr(tf, name), images(), kernel(1, 5, 6, 4))
case("pow", tf.pow, positive, channel)
case("div floats", gen_math_ops._div if hasattr(gen_math_ops, "_div") else gen_math_ops.div, x, channel)
whole = np.array([[7, -7, 5], [-5, 9, -9]], np.int32)
case("div ints", gen_math_ops._div if hasattr(gen_math_ops, "_div") else gen_math_ops.div, whole, np.int32(2))
case("floordiv", tf.floordiv, whole, np.int32(2))
case("floordiv floats", tf.floordiv, x, np.float32(0.3))
case("floormod", tf.floormod, whole, np.int32(3))
case("mod", gen_math_ops.mod, x, np.float32(0.7))
case("truncatemod", gen_math_ops.floor_mod, x, np.float32(0.7))
case("add n", lambda a, b, c: tf.add_n([a, b, c]), images(), images(), images())
case("clip", lambda a: tf.clip_by_value(a * 200, 0, 255), x)
case("clip tensors", tf.clip_by_value, x, np.float32(-0.5), np.float32(0.5))
for name in ["equal", "not_equal", "greater", "greater_equal", "less", "less_equal"]:
    case(name, getattr(tf, name), np.array([1, 2, 3], np.int32), np.array([3, 2, 1], np.int32))
case(
    "logic", lambda a, b: [tf.logical_and(a, b), tf.logical_or(a, b), tf.logical_not(a)], [True, True, False], [True, False, False]
)
case("where", lambda a, b: tf.where(a > b, a, b), images(), images())
case("where rows", tf.where, [True, False], images(), images())
case("zeros and ones like", lambda a: [tf.zeros_like(a), gen_array_ops.ones_like(a)], x, dynamic=True)
case("stop gradient", lambda a: tf.stop_gradient(tf.check_numerics(a, "finite")), x)
case("placeholder with default", lambda a: a + tf.placeholder_with_default(np.float32(2), ()), x)
case("leaky relu", lambda a: tf.nn.leaky_relu(a, 0.1), x)
case("cast up", lambda a: tf.cast(a, tf.float64), x)
case("cast to uint8", lambda a: tf.cast(tf.clip_by_value(a * 100 + 100, 0, 255), tf.uint8), x)
case("cast bool", lambda a: tf.cast(a > 0, tf.float32), x)
case("bias add", tf.nn.bias_add, x, channel)
case(
    "bias add nchw",
    lambda a, b: gen_nn_ops._bias_add(a, b, "NCHW") if hasattr(gen_nn_ops, "_bias_add") else gen_nn_ops.bias_add(a, b, "NCHW"),
    images(4, 5, 6),
    kernel(4),
)

# shapes
case("concat", lambda a, b: tf.concat([a, b], 3), images(), images(5, 6, 2))
case("concat first axis", lambda a, b: tf.concat([a, b], -1), [[1.0]], [[2.0]])
case(
    "concat old",
    lambda a, b: gen_array_ops._concat(1, [a, b]) if hasattr(gen_array_ops, "_concat") else gen_array_ops.concat(1, [a, b]),
    images(),
    images(),
)
case("pack", lambda a, b: tf.stack([a, b], axis=2), images(), images())
case("unpack", lambda a: tf.unstack(a, axis=3), x)
case("split", lambda a: tf.split(a, 2, axis=3), x)
case("split sizes", lambda a: tf.split(a, [1, -1, 1], axis=3), x)
case("slice half", lambda a: [a[:, :, :, :2], a[:, :, :, 2:]], x)
case("slice strided", lambda a: [a[:, :, :, 0::2], a[:, 1:4:2, :, 1::2]], x)
case("slice reversed", lambda a: a[:, :, :, ::-1], x)
case("slice reversed part", lambda a: a[:, 4:0:-2, ::-1, 1:], x)
case("slice ellipsis", lambda a: a[..., ::-1], x)
case("slice new axis", lambda a: a[:, tf.newaxis, ..., 0], x)
case("slice negative", lambda a: a[:, -3:-1, :, -1], x)
case("slice op", lambda a: tf.slice(a, [0, 1, 0, 2], [-1, 3, 6, -1]), x)
case("pad", lambda a: tf.pad(a, [[0, 0], [1, 1], [2, 0], [0, 0]]), x)
case("pad value", lambda a: tf.pad(a, [[0, 0], [1, 1], [2, 0], [0, 1]], constant_values=2.5), x)
case("mirror pad", lambda a: tf.pad(a, [[0, 0], [1, 2], [2, 0], [0, 0]], "REFLECT"), x)
case("symmetric pad", lambda a: tf.pad(a, [[0, 0], [1, 2], [2, 0], [0, 1]], "SYMMETRIC"), x)
case("gather", lambda a: tf.gather(a, [2, 0, 3, 1], axis=3), x)
case("gather rows", lambda a, b: tf.gather(a, b), kernel(5, 3), np.array([[4, 0], [2, 2]], np.int32))
case("gather old", lambda a, b: gen_array_ops.gather(a, b), kernel(5, 3), np.array([4, 0, 2], np.int32))
case("shuffle", lambda a: tf.transpose(tf.gather(tf.transpose(a, [3, 1, 2, 0]), [2, 0, 3, 1]), [3, 1, 2, 0]), x)
case("expand and squeeze", lambda a: tf.squeeze(tf.expand_dims(a, 2), [2]), x)
case("squeeze all", tf.squeeze, kernel(1, 3, 1))
case("fill", lambda a: tf.fill([2, 3], a), np.float32(0.5))
case("one hot", lambda a: tf.one_hot(a, 4, 1.0, 0.0), np.array([0, 3, 1], np.int32))
case("one hot axis", lambda a: tf.one_hot(a, 4, 5.0, -1.0, axis=0), np.array([0, 3, 1], np.int32))
case("range", lambda a: tf.range(1, a, 2), np.int32(8))
case("reshape", lambda a: tf.reshape(a, [-1, 30, 4]), x)
case("reverse", lambda a: tf.reverse(a, [1, -1]), x)
case("shape size rank", lambda a: [tf.shape(a), tf.size(a), gen_array_ops.rank(a)], x[:1], dynamic=True)
case("shapes", lambda a, b: tf.shape_n([a, b]), x, channel, dynamic=True)
case("tile", lambda a: tf.tile(a, [1, 2, 1, 3]), x)
case("transpose", lambda a: tf.transpose(a, [0, 2, 1, 3]), x)
case("invert permutation", tf.invert_permutation, np.array([2, 0, 3, 1], np.int32))
case(
    "broadcast to",
    lambda a: tf.broadcast_to(a, [2, 3]) if hasattr(tf, "broadcast_to") else tf.tile(tf.reshape(a, [1, 3]), [2, 1]),
    kernel(3),
)
case(
    "squeeze2d",
    lambda a: tf.reshape(tf.transpose(tf.reshape(a, [-1, 3, 2, 4, 2, 4]), [0, 1, 3, 5, 2, 4]), [-1, 3, 4, 16]),
    images(6, 8),
)
case("unsqueeze2d", lambda a: tf.reshape(tf.transpose(tf.reshape(a, [-1, 5, 6, 1, 2, 2]), [0, 1, 4, 2, 5, 3]), [-1, 10, 12, 1]), x)

# sums and matrices
for name in ["sum", "mean", "max", "min", "prod"]:
    case("reduce " + name, getattr(tf, "reduce_" + name), x)
    case("reduce %s axes" % name, lambda a, f=getattr(tf, "reduce_" + name): [f(a, [1, 2]), f(a, [-1], keepdims=True)], x)
case("reduce mean ints", tf.reduce_mean, np.array([1, 2, 4, -9], np.int32))
case("reduce all any", lambda a: [tf.reduce_all(a > -3, [1]), tf.reduce_any(a > 2, [3])], x)
case("softmax", lambda a: [tf.nn.softmax(a), tf.nn.log_softmax(a)], kernel(3, 5))
case("l2 loss", tf.nn.l2_loss, x)
case("l2 normalize", lambda a: tf.nn.l2_normalize(a, [0, 1, 2]), kernel(3, 3, 4, 5))
case("cumsum", lambda a: [tf.cumsum(a, 1), tf.cumsum(a, 3, exclusive=True), tf.cumsum(a, 1, reverse=True)], x)
case("cumprod", lambda a: tf.cumprod(a, 3, exclusive=True, reverse=True), x)
case("moments", lambda a: tf.nn.moments(a, [1, 2]), x)
matrix = kernel(4, 4)
case("matmul", tf.matmul, kernel(2, 3), kernel(3, 4))
case("matmul transposed", lambda a, b: tf.matmul(a, b, transpose_a=True, transpose_b=True), kernel(3, 2), kernel(4, 3))
case("batch matmul", lambda a, b: tf.matmul(a, b, adjoint_b=True), kernel(2, 3, 4), kernel(2, 5, 4))
case("determinant", tf.matrix_determinant, matrix)
case("log determinant", lambda a: gen_linalg_ops.log_matrix_determinant(a), matrix)
case("inverse", tf.matrix_inverse, matrix)
case("solve", tf.matrix_solve, matrix, kernel(4, 2))
case("cholesky", tf.cholesky, matrix.dot(matrix.T) + np.eye(4, dtype=np.float32))
triangle = np.tril(matrix) + 3 * np.eye(4, dtype=np.float32)
case(
    "triangular solve",
    lambda a, b: [tf.matrix_triangular_solve(a, b), tf.matrix_triangular_solve(a, b, adjoint=True)],
    triangle,
    kernel(4, 2),
)
case("triangular solve upper", lambda a, b: tf.matrix_triangular_solve(a, b, lower=False), triangle.T.copy(), kernel(4, 2))
case("diag", lambda a: [tf.diag(a), tf.matrix_diag(a)], kernel(3))
case("diag part", lambda a: [tf.diag_part(a), tf.matrix_diag_part(a)], matrix)
case("band part", lambda a: [tf.matrix_band_part(a, -1, 0), tf.matrix_band_part(a, 1, 2)], matrix)
case("set diag", tf.matrix_set_diag, matrix, kernel(4))

# windows over images
for padding in ("SAME", "VALID"):
    for size, stride, name in ((3, 1, ""), (1, 1, " 1x1"), (3, 2, " stride 2"), (4, 2, " even"), (2, 1, " 2x2")):
        case(
            "conv %s%s" % (padding, name),
            lambda a, k, s=stride, p=padding: tf.nn.conv2d(a, k, [1, s, s, 1], p),
            images(8, 7),
            kernel(size, size, 4, 3),
        )
    case(
        "conv dilated " + padding,
        lambda a, k, p=padding: tf.nn.conv2d(a, k, [1, 1, 1, 1], p, dilations=[1, 1, 1, 1]),
        images(9, 8),
        kernel(3, 3, 4, 3),
    )
    case("atrous " + padding, lambda a, k, p=padding: tf.nn.atrous_conv2d(a, k, 2, p), images(9, 8), kernel(3, 3, 4, 3))
    case("depthwise " + padding, lambda a, k, p=padding: tf.nn.depthwise_conv2d(a, k, [1, 1, 1, 1], p), x, kernel(3, 3, 4, 2))
    case(
        "depthwise stride " + padding,
        lambda a, k, p=padding: tf.nn.depthwise_conv2d(a, k, [1, 2, 2, 1], p),
        images(8, 7),
        kernel(3, 3, 4, 1),
    )
    case(
        "separable " + padding,
        lambda a, d, k, p=padding: tf.nn.separable_conv2d(a, d, k, [1, 1, 1, 1], p),
        x,
        kernel(3, 3, 4, 1),
        kernel(1, 1, 4, 5),
    )
    case("average pool " + padding, lambda a, p=padding: tf.nn.avg_pool(a, [1, 3, 3, 1], [1, 2, 2, 1], p), images(8, 7))
    case("average pool 2 " + padding, lambda a, p=padding: tf.nn.avg_pool(a, [1, 2, 2, 1], [1, 2, 2, 1], p), images(8, 8))
    case("max pool " + padding, lambda a, p=padding: tf.nn.max_pool(a, [1, 3, 3, 1], [1, 2, 2, 1], p), images(8, 7))
case("conv wide", lambda a, k: tf.nn.conv2d(a, k, [1, 2, 1, 1], "SAME"), images(8, 7), kernel(3, 5, 4, 2))
case(
    "transposed conv SAME",
    lambda k, y: tf.nn.conv2d_transpose(y, k, [2, 8, 10, 3], [1, 2, 2, 1], "SAME"),
    kernel(3, 3, 3, 4),
    images(4, 5),
)
case(
    "transposed conv VALID",
    lambda k, y: tf.nn.conv2d_transpose(y, k, [2, 9, 11, 3], [1, 2, 2, 1], "VALID"),
    kernel(3, 3, 3, 4),
    images(4, 5),
)
case(
    "transposed conv odd",
    lambda k, y: tf.nn.conv2d_transpose(y, k, [2, 7, 9, 3], [1, 2, 2, 1], "SAME"),
    kernel(4, 4, 3, 4),
    images(4, 5),
)
case(
    "batch norm",
    lambda a, s, o, m, v: tf.nn.fused_batch_norm(a, s, o, m, v, epsilon=0.01, is_training=False)[0],
    x,
    channel,
    kernel(4),
    kernel(4),
    np.abs(kernel(4)),
)
for corners in (False, True):
    for size in ([10, 12], [7, 9], [3, 2]):
        end = " %dx%d%s" % (size[0], size[1], " corners" if corners else "")
        case("nearest" + end, lambda a, s=size, c=corners: gen_image_ops.resize_nearest_neighbor(a, s, align_corners=c), x)
        case("bilinear" + end, lambda a, s=size, c=corners: gen_image_ops.resize_bilinear(a, s, align_corners=c), x)
case("space to depth", lambda a: tf.space_to_depth(a, 2), images(6, 8))
case("depth to space", lambda a: tf.depth_to_space(a, 2), images(6, 8))
case("space to batch", lambda a: tf.space_to_batch_nd(a, [2, 3], [[0, 0], [1, 2]]), images(6, 6))
case("batch to space", lambda a: tf.batch_to_space_nd(a, [2, 3], [[0, 0], [1, 2]]), images(3, 3, count=12))
case(
    "fused pad conv",
    lambda a, k: gen_nn_ops.fused_pad_conv2d(a, [[0, 0], [1, 1], [1, 1], [0, 0]], k, "REFLECT", [1, 1, 1, 1], "VALID"),
    x[:1],  # of a batch of two, TensorFlow 1.8 gives the second image the values of the first
    kernel(3, 3, 4, 2),
)
case(
    "fused resize pad conv",
    lambda a, k: gen_nn_ops.fused_resize_and_pad_conv2d(
        a, [10, 12], [[0, 0], [1, 1], [1, 1], [0, 0]], k, "REFLECT", [1, 1, 1, 1], "VALID"
    ),
    x[:1],  # of a batch of two, TensorFlow 1.8 gives the second image the values of the first
    kernel(3, 3, 4, 2),
)

# weights of 8 bits, as graph_transforms' quantize_weights stores them
for kind, numbers in ((tf.quint8, np.arange(256, dtype=np.uint8)), (tf.qint8, np.arange(-128, 128).astype(np.int8))):
    levels = numbers.astype(kind.as_numpy_dtype)
    for mode in ("MIN_COMBINED", "MIN_FIRST", "SCALED"):
        for low, high in ((-1.7, 2.3), (0.0, 4.0), (-0.3, 0.0)):
            if (mode, kind) != ("SCALED", tf.quint8) or low >= 0:
                name = "dequantize %s %s %g" % (kind.name, mode, low)
                case(
                    name, lambda a, q=levels, m=mode, l=low, h=high: tf.dequantize(tf.constant(q), l, h, mode=m) + a, np.float32(0)
                )

np.savez_compressed(sys.argv[1], **cases)
print(len({name.split("/")[0] for name in cases}), "cases")
