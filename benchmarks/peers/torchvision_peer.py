"""torchvision's Mask R-CNN R50-FPN as a peer, on a GPU where there is one; random weights, LVIS test settings."""

import numpy as np
import torch
import torchvision
from protocol import arguments, near, random_scene, serve
from torchvision.models.detection import maskrcnn_resnet50_fpn


def main():
    """Serve steps."""
    options = arguments()
    if options.cascade or options.depth != 50:
        raise SystemExit("torchvision has Mask R-CNN with ResNet-50 only")
    torch.manual_seed(0)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    rng = np.random.default_rng(0)
    scenes = [random_scene(rng, options.size, options.ground_truths, options.classes) for _ in range(options.batch)]
    detector = maskrcnn_resnet50_fpn(
        weights=None,
        weights_backbone=None,
        num_classes=options.classes + 1,
        min_size=min(options.size),
        max_size=max(options.size),
        box_detections_per_img=300,
        box_score_thresh=1e-4,
    ).to(device)
    versions = {"peer": f"torchvision {torchvision.__version__}", "torch": torch.__version__, "on": str(device)}
    images = [torch.from_numpy(scene[0].transpose(2, 0, 1).copy()).to(device).float() / 255 for scene in scenes]
    targets = [
        {
            "boxes": torch.from_numpy(boxes).to(device),
            "labels": torch.from_numpy(labels + 1).to(device),
            "masks": torch.from_numpy(masks).to(device),
        }
        for _, boxes, labels, masks in scenes
    ]

    def compute():
        return torch.autocast(device.type, torch.bfloat16, enabled=options.bf16)

    def wait():
        if device.type == "cuda":
            torch.cuda.synchronize()

    def train():
        with compute():
            loss = sum(detector(images, targets).values())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        wait()
        return {"loss": float(loss.detach())}

    @torch.no_grad()
    def predict():
        with compute():
            found = detector(images)
        wait()
        return {"detections": sum(len(one["boxes"]) for one in found)}

    peak = (lambda: torch.cuda.max_memory_allocated() / 2**30) if device.type == "cuda" else None
    if options.task == "train":
        detector.train()
        parameters = [p for p in detector.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, weight_decay=1e-4)
        usual = detector.roi_heads.forward

        def forward_near(features, proposals, shapes, truths=None):
            close = [torch.from_numpy(near(rng, t["boxes"].cpu().numpy(), 256)).to(device) for t in truths]
            proposals = [torch.cat([c, p[256:]]) for c, p in zip(close, proposals, strict=True)]
            return usual(features, proposals, shapes, truths)

        detector.roi_heads.forward = forward_near
        serve(versions, train, peak)
    else:
        detector.eval()
        generator = torch.Generator(device).manual_seed(0)

        def spread(module, inputs, output):
            logits, deltas = output
            fixed = options.logit_spread * torch.randn(logits.shape, generator=generator, device=device)
            fixed[:, 0] = options.background_logit
            return fixed, deltas

        detector.roi_heads.box_predictor.register_forward_hook(spread)
        serve(versions, predict, peak)


if __name__ == "__main__":
    main()
