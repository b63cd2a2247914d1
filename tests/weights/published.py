"""Names and shapes of published weights, written down as rules: what the files of ``weights/sources.toml`` hold."""

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def norm(name, width):
    own = {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
    return own | {f"{name}.num_batches_tracked": ()}


def resnet(depth, *, classifier=True):
    """torchvision's ResNet-50 or -101, as torch and timm save it: ``name -> shape``."""
    found = {"conv1.weight": (64, 3, 7, 7)} | norm("bn1", 64)
    inside = 64
    for stage, count in enumerate(BLOCKS[depth], 1):
        width = 64 * 2 ** (stage - 1)
        for block in range(count):
            at = f"layer{stage}.{block}"
            found |= {f"{at}.conv1.weight": (width, inside, 1, 1)} | norm(f"{at}.bn1", width)
            found |= {f"{at}.conv2.weight": (width, width, 3, 3)} | norm(f"{at}.bn2", width)
            found |= {f"{at}.conv3.weight": (4 * width, width, 1, 1)} | norm(f"{at}.bn3", 4 * width)
            if block == 0:
                found |= {f"{at}.downsample.0.weight": (4 * width, inside, 1, 1)}
                found |= norm(f"{at}.downsample.1", 4 * width)
            inside = 4 * width
    if classifier:
        found |= {"fc.weight": (1000, 2048), "fc.bias": (1000,)}
    return found


def layer(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def mask_rcnn_r50_fpn(classes=80):
    """MMDetection's Mask R-CNN R50-FPN: the ``state_dict`` of its checkpoint."""
    found = {f"backbone.{name}": shape for name, shape in resnet(50, classifier=False).items()}
    for level, width in enumerate((256, 512, 1024, 2048)):
        found |= layer(f"neck.lateral_convs.{level}.conv", 256, width, 1, 1)
        found |= layer(f"neck.fpn_convs.{level}.conv", 256, 256, 3, 3)
    found |= layer("rpn_head.rpn_conv", 256, 256, 3, 3)
    found |= layer("rpn_head.rpn_cls", 3, 256, 1, 1) | layer("rpn_head.rpn_reg", 12, 256, 1, 1)
    found |= layer("roi_head.bbox_head.fc_cls", classes + 1, 1024) | layer(
        "roi_head.bbox_head.fc_reg", 4 * classes, 1024
    )
    found |= layer("roi_head.bbox_head.shared_fcs.0", 1024, 256 * 49) | layer(
        "roi_head.bbox_head.shared_fcs.1", 1024, 1024
    )
    for number in range(4):
        found |= layer(f"roi_head.mask_head.convs.{number}.conv", 256, 256, 3, 3)
    found |= {"roi_head.mask_head.upsample.weight": (256, 256, 2, 2), "roi_head.mask_head.upsample.bias": (256,)}
    return found | layer("roi_head.mask_head.conv_logits", classes, 256, 1, 1)
