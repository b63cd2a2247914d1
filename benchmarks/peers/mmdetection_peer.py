"""MMDetection 3.3 on CPU as a peer: Mask R-CNN or Cascade Mask R-CNN with cross-entropy, LVIS test settings."""

import logging
import os
import warnings

import mmcv
import mmdet
import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from protocol import arguments, near, random_scene, serve


def as_list(value):
    """Heads of a cascade are a list, of Mask R-CNN one."""
    return list(value) if isinstance(value, (list, torch.nn.ModuleList)) else [value]


def build(options):
    """The detector with random weights."""
    kind = "cascade-mask-rcnn_r50_fpn" if options.cascade else "mask-rcnn_r50_fpn"
    folder = os.path.join(os.path.dirname(mmdet.__file__), ".mim", "configs", "_base_", "models")
    model = Config.fromfile(os.path.join(folder, f"{kind}.py")).model
    model.backbone.depth, model.backbone.init_cfg = options.depth, None  # nothing is downloaded
    for head in as_list(model.roi_head.bbox_head) + as_list(model.roi_head.mask_head):
        head.num_classes = options.classes
    model.test_cfg.rcnn.score_thr, model.test_cfg.rcnn.max_per_img = 1e-4, 300
    detector = MODELS.build(model)
    detector.init_weights()
    return detector


def inputs(detector, scenes, training):
    """What its own preprocessor makes of the scenes."""
    images, samples = [], []
    for index, (image, boxes, labels, masks) in enumerate(scenes):
        images.append(torch.from_numpy(image[..., ::-1].transpose(2, 0, 1).copy()))
        sample, truth = DetDataSample(), InstanceData()
        sample.set_metainfo(
            {"img_id": index, "img_shape": image.shape[:2], "ori_shape": image.shape[:2], "scale_factor": (1.0, 1.0)}
        )
        truth.bboxes, truth.labels = torch.from_numpy(boxes), torch.from_numpy(labels)
        truth.masks = BitmapMasks(masks, *image.shape[:2])
        sample.gt_instances = truth
        samples.append(sample)
    return detector.data_preprocessor({"inputs": images, "data_samples": samples}, training)


def main():
    """Serve steps."""
    warnings.filterwarnings("ignore")
    register_all_modules()
    MMLogger.get_instance("mmengine", log_level="ERROR").setLevel(logging.ERROR)
    options = arguments()
    torch.manual_seed(0)
    if options.threads:
        torch.set_num_threads(options.threads)
    rng = np.random.default_rng(0)
    scenes = [random_scene(rng, options.size, options.ground_truths, options.classes) for _ in range(options.batch)]
    detector = build(options)
    versions = {"peer": f"MMDetection {mmdet.__version__}", "torch": torch.__version__, "mmcv": mmcv.__version__}
    versions["threads"] = torch.get_num_threads()

    def train():
        data = inputs(detector, scenes, True)
        loss, _ = detector.parse_losses(detector.loss(data["inputs"], data["data_samples"]))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return {"loss": float(loss.detach())}

    @torch.no_grad()
    def predict():
        data = inputs(detector, scenes, False)
        found = detector.predict(data["inputs"], data["data_samples"], rescale=True)
        return {"detections": sum(len(sample.pred_instances) for sample in found)}

    if options.task == "train":
        detector.train()
        parameters = [p for p in detector.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, weight_decay=1e-4)
        usual = detector.roi_head.loss

        def loss_near(features, proposals, samples):
            for proposal, sample in zip(proposals, samples, strict=True):
                count = min(256, len(proposal.bboxes))
                proposal.bboxes[:count] = torch.from_numpy(near(rng, sample.gt_instances.bboxes.numpy(), count))
            return usual(features, proposals, samples)

        detector.roi_head.loss = loss_near
        serve(versions, train)
    else:
        detector.eval()
        generator = torch.Generator().manual_seed(0)
        for head in as_list(detector.roi_head.bbox_head):

            def spread(module, arguments, output):
                fixed = options.logit_spread * torch.randn(output.shape, generator=generator)
                fixed[:, -1] = options.background_logit
                return fixed

            head.fc_cls.register_forward_hook(spread)
        serve(versions, predict)


if __name__ == "__main__":
    main()
