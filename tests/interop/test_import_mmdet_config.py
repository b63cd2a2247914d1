"""Configs of MMDetection become ours: values, base files, what is refused; nothing in them is run."""

import runpy

import pytest

from c2am_jax.config import load_experiment, lvis, parse
from c2am_jax.errors import UserError
from c2am_jax.interop.import_mmdet_config import main
from c2am_jax.interop.mmdetection.config import Unreadable, read_config

DETECTOR = """
depth = 50
classes = 1203
coder = dict(type='DeltaXYWHBBoxCoder', target_means=[0.] * 4, target_stds=[.1, .1, .2, .2])
pool = dict(type='SingleRoIExtractor', out_channels=256, featmap_strides=[4, 8, 16, 32],
            roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0))
match = dict(type='MaxIoUAssigner', pos_iou_thr=.5, neg_iou_thr=.5, min_pos_iou=.5, match_low_quality=True)
model = dict(
    type='MaskRCNN',
    backbone=dict(type='ResNet', depth=depth, frozen_stages=1, norm_cfg=dict(type='BN', requires_grad=True),
                  init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50')),
    neck=dict(type='FPN', in_channels=[2 * 128, 512, 1024, 2048], out_channels=256, num_outs=5),
    rpn_head=dict(
        type='RPNHead', in_channels=256, feat_channels=256,
        anchor_generator=dict(type='AnchorGenerator', scales=[8], ratios=[.5, 1, 2], strides=[4, 8, 16, 32, 64]),
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.), loss_bbox=dict(type='L1Loss')),
    roi_head=dict(
        type='StandardRoIHead', bbox_roi_extractor=pool,
        bbox_head=dict(type='Shared2FCBBoxHead', num_classes=classes, bbox_coder=coder,
                       loss_cls=dict(type='CrossEntropyLoss'), loss_bbox=dict(type='L1Loss')),
        mask_roi_extractor=dict(pool, roi_layer=dict(type='RoIAlign', output_size=14)),
        mask_head=dict(type='FCNMaskHead', num_classes=classes)),
    train_cfg=dict(
        rpn=dict(assigner=dict(match, pos_iou_thr=.7, neg_iou_thr=.3, min_pos_iou=.3), allowed_border=-1,
                 sampler=dict(type='RandomSampler', num=256, pos_fraction=.5, add_gt_as_proposals=False)),
        rpn_proposal=dict(nms_pre=2000, max_per_img=1000, nms=dict(type='nms', iou_threshold=.7), min_bbox_size=0),
        rcnn=dict(assigner=match, sampler=dict(type='RandomSampler', num=512, pos_fraction=.25), mask_size=28)),
    test_cfg=dict(
        rpn=dict(nms_pre=1000, max_per_img=1000, nms=dict(type='nms', iou_threshold=.7), min_bbox_size=0),
        rcnn=dict(score_thr=1e-4, nms=dict(type='nms', iou_threshold=.5), max_per_img=300)))
"""
NEW = """
_base_ = ['detector.py', 'schedule.py']
root = 'data/lvis_v1/'
pipeline = [
    dict(type='LoadImageFromFile', backend_args={{_base_.backend_args}}),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomChoiceResize', scales=[(1333, 640), (1333, 800)], keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')]
train_dataloader = dict(
    batch_size=2,
    dataset=dict(type='ClassBalancedDataset', oversample_thr=2e-3,
                 dataset=dict(type='LVISV1Dataset', data_root=root, ann_file='annotations/lvis_v1_train.json',
                              data_prefix=dict(img=''), pipeline=pipeline)))
val_dataloader = dict(
    dataset=dict(type='LVISV1Dataset', data_root=root, ann_file='annotations/lvis_v1_val.json',
                 pipeline=[dict(type='Resize', scale=(1333, 800), keep_ratio=True)]))
"""
SCHEDULE = """
backend_args = None
max_epochs = 12
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[8, 11], gamma=0.1)]
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-4))
default_hooks = dict(logger=dict(type='LoggerHook', interval=50))
"""
OLD = """
_base_ = 'detector.py'
norm = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
lvis = dict(type='LVISV1Dataset', ann_file='data/lvis_v1/' + 'annotations/lvis_v1_train.json', img_prefix='x')
data = dict(
    samples_per_gpu=2,
    train=dict(type='ClassBalancedDataset', oversample_thr=2e-3, dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='Resize', img_scale=[(1333, 640), (1333, 800)], multiscale_mode='value', keep_ratio=True),
            dict(type='RandomFlip', flip_ratio=0.5),
            dict(type='Normalize', **norm),
            dict(type='Pad', size_divisor=32),
            dict(type='DefaultFormatBundle'),
            dict(type='Collect', keys=['img', 'gt_masks'])],
        **lvis)),
    val=dict(lvis, pipeline=[dict(type='MultiScaleFlipAug', img_scale=(1333, 800), flip=False, transforms=[])]))
optimizer = dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001)
optimizer_config = dict(grad_clip=None)
lr_config = dict(policy='step', warmup='linear', warmup_iters=500, warmup_ratio=0.001, step=[8, 11])
runner = dict(type='EpochBasedRunner', max_epochs=12)
"""
CASCADE = """
def_stds = ([.1, .1, .2, .2], [.05, .05, .1, .1], [.033, .033, .067, .067])
head = dict(type='Shared2FCBBoxHead', num_classes=1203, reg_class_agnostic=True,
            cls_predictor_cfg=dict(type='NormedLinear', tempearture=16),
            loss_cls=dict(type='SeesawLoss', p=0.7, q=2.0, num_classes=1203),
            loss_bbox=dict(type='SmoothL1Loss', beta=1.0))
coder = dict(type='DeltaXYWHBBoxCoder')
match = dict(type='MaxIoUAssigner', match_low_quality=False)
sample = dict(type='RandomSampler', num=512, pos_fraction=.25)
model = dict(
    type='CascadeRCNN',
    backbone=dict(depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')),
    roi_head=dict(
        type='CascadeRoIHead', num_stages=3, stage_loss_weights=[1, .5, .25],
        bbox_head=[dict(head, bbox_coder=dict(coder, target_stds=def_stds[0])),
                   dict(head, bbox_coder=dict(coder, target_stds=def_stds[1])),
                   dict(head, bbox_coder=dict(coder, target_stds=def_stds[2]))],
        mask_head=dict(predictor_cfg=dict(type='NormedConv2d', tempearture=20))),
    train_cfg=dict(
        rpn=dict(allowed_border=0), rpn_proposal=dict(max_per_img=2000),
        rcnn=[dict(assigner=dict(match, pos_iou_thr=.5, neg_iou_thr=.5, min_pos_iou=.5), sampler=sample),
              dict(assigner=dict(match, pos_iou_thr=.6, neg_iou_thr=.6, min_pos_iou=.6), sampler=sample),
              dict(assigner=dict(match, pos_iou_thr=.7, neg_iou_thr=.7, min_pos_iou=.7), sampler=sample)]))
_base_.model.rpn_head.loss_bbox = dict(type='SmoothL1Loss', beta=1.0 / 9.0)
"""


@pytest.fixture
def run(tmp_path, capsys):
    """Translate NEW (or another text) with lines behind it: (status, stdout, stderr, the written config)."""

    def translated(text=NEW, more="", *flags):
        for name, content in (("detector.py", DETECTOR), ("schedule.py", SCHEDULE), ("theirs.py", text + more)):
            (tmp_path / name).write_text(content)
        out = tmp_path / "ours.py"
        out.unlink(missing_ok=True)
        status = main([str(tmp_path / "theirs.py"), "--out", str(out), *flags])
        assert out.exists() == (status == 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err, out

    return translated


def expected(**changes):
    config = lvis("theirs", "softmax")
    values = {
        "data.sampler": "repeat_factor",
        "data.repeat_threshold": 2e-3,
        "data.short_sides": (640, 800),
        "train.epochs": 12,
        "train.lr_drops": (8 / 12, 11 / 12),
        "train.warmup_steps": 500,
    }
    config.update_from_flattened_dict(values | changes)
    return parse(config)


@pytest.mark.parametrize("text", [NEW, OLD], ids=["3.x", "2.x"])
def test_a_config_and_its_base_files_become_a_small_config_that_trains_the_same(run, text):
    status, output, error, out = run(text)
    assert (status, error) == (0, "")
    assert load_experiment(str(out)) == expected()
    assert len(out.read_text().splitlines()) < 30 and 'lvis("theirs", "softmax", depth=50)' in out.read_text()
    theirs = "train_dataloader.dataset.oversample_thr" if text == NEW else "data.train.oversample_thr"
    lines = [" ".join(line.split()) for line in output.splitlines()]
    assert f"data.repeat_threshold = 0.002 from {theirs}" in lines
    assert any(line.startswith("train.lr_drops = (2 / 3, 11 / 12) from ") for line in lines)
    assert "8 GPUs" in output and f"python train.py --config {out}" in output


def test_one_gpu_is_told_in_the_singular(run):
    _, output, _, out = run(NEW, "", "--gpus=1")
    assert output.rstrip().splitlines()[-2].endswith("made for 1 GPU")
    assert "for 1 GPU." in out.read_text().splitlines()[0]


def test_what_is_left_out_is_named(run):
    more = "\noptim_wrapper = dict(type='AmpOptimWrapper')\nmy_variable = 3\n"
    status, output, _, _ = run(NEW, more)
    left = output.partition("left out:")[2]
    assert status == 0 and "default_hooks: logger" in left and "my_variable" not in output
    assert "optim_wrapper.type: float16; computed in float32 here" in left
    assert "ann_file=data/lvis_v1/annotations/lvis_v1_train.json: files are looked for in data/lvis_v1" in left


def test_a_cascade_with_seesaw_loss_has_every_stage(run):
    status, _, error, out = run(NEW, CASCADE)
    assert (status, error) == (0, "")
    assert 'lvis("theirs", "seesaw", depth=101, cascade=True)' in out.read_text()
    reference = lvis("theirs", "seesaw", depth=101, cascade=True)
    reference.model.mask_head.predictor = "normed"
    found = load_experiment(str(out))
    assert found.model == parse(reference).model
    assert found.loss.parameters == {"p": 0.7, "q": 2.0, "eps": 1e-2, "temperature": 16.0}


HEAD = "model = dict(roi_head=dict(bbox_head=dict("
LOSSES = {
    "loss_cls=dict(type='EQLv2', gamma=10, num_classes=1203)": ("eql_v2", {"gamma": 10.0, "mu": 0.8, "alpha": 4.0}),
    "loss_cls=dict(_delete_=True, type='EQL', lambda_=1e-3, version='v1')": ("eql", {"tail_frequency": 1e-3}),
    "cls_predictor_cfg=dict(type='NormedLinear', tempearture=25)": ("cosine", {"scale": 25.0}),
}


@pytest.mark.parametrize("head", LOSSES)
def test_losses_become_methods_with_their_parameters(run, head):
    method, parameters = LOSSES[head]
    status, output, error, out = run(NEW, f"{HEAD}{head})))")
    found = load_experiment(str(out)).loss
    assert (status, error, found.name, found.parameters) == (0, "", method, parameters)
    assert ("the bias of NormedLinear; `cosine` has none" in output) == (method == "cosine")


def test_batch_and_rate_follow_the_number_of_gpus(run):
    train = load_experiment(str(run(NEW, "", "--gpus=4")[3])).train
    assert (train.batch_size, train.base_lr) == (8, 0.04)  # their rate of 0.02 is for 8 pictures
    scaled = "auto_scale_lr = dict(enable=True, base_batch_size=16)"
    train = load_experiment(str(run(NEW, scaled, "--gpus=4")[3])).train
    assert (train.batch_size, train.base_lr) == (8, 0.02)


def test_runs_in_steps_ranges_of_sizes_and_repeated_data(run):
    more = """
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=90000)
param_scheduler = [dict(type='MultiStepLR', by_epoch=False, milestones=[60000, 80000])]
optim_wrapper = dict(clip_grad=dict(max_norm=35, norm_type=2))
"""
    train = load_experiment(str(run(NEW, more)[3])).train
    assert (train.steps, train.lr_steps, train.warmup_steps, train.grad_clip) == (90000, (60000, 80000), 0, 35.0)
    more = """
pipeline[2] = 0
other = [dict(type='LoadAnnotations', with_mask=True), dict(type='PackDetInputs'),
         dict(type='RandomResize', scale=[(1333, 640), (1333, 800)], keep_ratio=True)]
lvis = dict(type='LVISV1Dataset', ann_file='lvis_v1_train.json', pipeline=other)
train_dataloader = dict(batch_size=2, dataset=dict(type='RepeatDataset', times=3, dataset=lvis))
"""
    status, output, error, out = run(NEW, more)
    assert (status, error) == (0, "")
    found = load_experiment(str(out))
    assert found.data.short_sides == tuple(range(640, 801)) and "tuple(range(640, 801))" in out.read_text()
    assert (found.train.epochs, found.data.flip_probability, found.data.sampler) == (36, 0.0, "random")


def test_own_files_start_from_the_config_for_own_data(run):
    more = """
names = dict(classes=('bolt', 'nut'))
own = dict(type='CocoDataset', metainfo=names, data_root='parts/', data_prefix=dict(img='photos'), pipeline=pipeline)
train_dataloader = dict(batch_size=1, dataset=dict(own, ann_file='train.json', filter_cfg=dict(min_size=32)))
resize = dict(type='Resize', scale=(1333, 800), keep_ratio=True)
val_dataloader = dict(dataset=dict(own, ann_file='val.json', pipeline=[resize]))
model = dict(roi_head=dict(bbox_head=dict(num_classes=2), mask_head=dict(num_classes=2)))
load_from = 'detector.pth'
"""
    status, output, error, out = run(NEW, more, "--gpus=1")
    assert (status, error) == (0, "")
    assert "metainfo: classes are those of the json" in output
    config = runpy.run_path(str(out))["get_config"]()
    data = config.data
    assert (data.annotations, data.images) == ("parts/train.json", "parts/photos")
    assert (data.val_annotations, data.val_images) == ("parts/val.json", "parts/photos")
    assert (config.train.init, config.train.reset_classifier, config.train.base_lr) == ("detector.pth", True, 0.32)
    assert config.model.num_classes == 2 and data.canvas is None  # left to the data


REFUSED = {
    "model = dict(type='FasterRCNN')": "model.type=FasterRCNN (must be MaskRCNN or CascadeRCNN)",
    "model = dict(backbone=dict(type='ResNeXt'))": "model.backbone.type=ResNeXt (must be ResNet)",
    "model = dict(backbone=dict(dcn=dict(type='DCNv2')))": "model.backbone.dcn",
    "model = dict(backbone=dict(style='caffe'))": "model.backbone.style=caffe (must be pytorch)",
    "model = dict(backbone=dict(norm_eval=False))": "model.backbone.norm_eval=False with BN",
    "model = dict(backbone=dict(spectral=3))": "model.backbone.spectral=3 has no counterpart",
    "model = dict(backbone=dict(init_cfg=dict(checkpoint='open-mmlab://x')))": "open-mmlab://x",
    "model = dict(neck=dict(type='PAFPN'))": "model.neck.type=PAFPN (must be FPN)",
    f"{HEAD}type='ConvFCBBoxHead')))": "bbox_head.type=ConvFCBBoxHead",
    f"{HEAD}loss_cls=dict(type='FocalLoss'))))": "loss_cls.type='FocalLoss': known are CrossEntropyLoss, SeesawLoss",
    f"{HEAD}loss_cls=dict(type='SeesawLoss'))))": "SeesawLoss has a normed classifier here",
    f"{HEAD}num_classes=80)))": "mask_head.num_classes=1203, but model.roi_head.bbox_head.num_classes=80",
    "model = dict(roi_head=dict(bbox_roi_extractor=dict(roi_layer=dict(sampling_ratio=2))))": "_ratio=2 (must be 0)",
    "model = dict(test_cfg=dict(rcnn=dict(nms=dict(type='soft_nms'))))": "nms.type=soft_nms (must be nms)",
    "model = dict(test_cfg=dict(rpn=dict(nms_pre='many')))": "pre_nms_test='many': must be a whole number",
    "_base_.optim_wrapper.optimizer.type = 'AdamW'": "optim_wrapper.optimizer.type=AdamW (must be SGD)",
    "optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0))": "paramwise_cfg",
    "param_scheduler = [dict(type='CosineAnnealingLR')]": "type=CosineAnnealingLR (must be LinearLR or MultiStepLR)",
    "custom_hooks = [dict(type='EMAHook')]": "EMAHook is code",
    "train_dataloader = dict(batch_size=2, dataset=dict(type='LVISV1Dataset', ann_file='x', pipeline=["
    "dict(type='Mosaic')]))": "pipeline[0].type='Mosaic': no such change of pictures here",
    "train_dataloader['num_batch_per_epoch'] = 10": "train_dataloader needs code to be run: train_dataloader['num_",
    "optim_wrapper = dict(accumulative_counts=4)": "optim_wrapper.accumulative_counts=4 (must be 1)",
    "import os\nmodel = dict(backbone=dict(frozen_stages=int(os.environ['STAGES'])))": "int(os.environ['STAGES'])",
}


@pytest.mark.parametrize("more", REFUSED)
def test_what_would_change_numbers_is_one_error_line_and_nothing_is_written(run, more):
    status, output, error, _ = run(NEW, more)
    lines = error.splitlines()
    assert (
        status == 2 and len(lines) == 1 and lines[0].startswith("error: ") and "theirs.py cannot be translated" in error
    )
    assert REFUSED[more] in error and "translated:" in output


def test_no_code_of_a_config_is_run(run, tmp_path):
    more = f"""
from pathlib import Path
Path(r'{tmp_path}/written').write_text('x')
side = [Path(r'{tmp_path}/written').write_text('y'), exec('raise SystemExit(7)')]
if True:
    Path(r'{tmp_path}/written').touch()
raise RuntimeError
"""
    status, _, error, out = run(NEW, more)
    assert (status, error) == (0, "") and not (tmp_path / "written").exists()
    assert load_experiment(str(out)) == expected()


@pytest.fixture
def values(tmp_path):
    """The values that the reader finds in a text; other files by name."""

    def read(text, **files):
        for name, content in files.items():
            (tmp_path / f"{name}.py").write_text(content)
        (tmp_path / "a.py").write_text(text)
        return read_config(tmp_path / "a.py")

    return read


def test_values_are_those_that_mmengine_gives(values):
    base = "kept = 1\nmodel = dict(a=dict(x=1, y=[1, 2]), b=dict(z=3))\nname = 'n'\nhooks = dict(log=dict(every=5))"
    text = """
_base_ = ['./base.py']
half = 1 / 2
more = dict(q=-half, **dict(r=[half] * 2))
model = dict(a=dict(y=(7,)), b=dict(_delete_=True, w=more['r'][0]), c={{_base_.name}}, d=f'{half}-x')
_base_.hooks.log.every = 9
del half
"""
    found = values(text, base=base)
    assert found["model"] == {"a": {"x": 1, "y": (7,)}, "b": {"w": 0.5}, "c": "n", "d": "0.5-x"}
    assert (found["kept"], found["hooks"], found["more"]) == (1, {"log": {"every": 9}}, {"q": -0.5, "r": [0.5, 0.5]})
    assert "half" not in found and "_base_" not in found


def test_what_other_code_may_have_changed_is_not_taken_for_read(values):
    text = """
size = [1, 2]
pair = dict(size=size)
other = 3
size.append(4)
x = len([1])
"""
    found = values(text)
    assert isinstance(found["size"], Unreadable) and isinstance(found["pair"], Unreadable) and found["other"] == 3
    assert str(found["x"]).endswith("a.py:6)") and found["x"].text == "len([1])"
    changed = values("_base_ = 'base.py'\n_base_.model.pop('neck')", base="model = dict(neck=1)\ndata = 2")
    assert isinstance(changed["model"], Unreadable) and changed["data"] == 2


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("_base_ = 'gone.py'", "gone.py: no such file, the _base_ of "),
        ("_base_ = 'a.py'", "is its own base file"),
        ("_base_ = ['base.py', 'base.py']", "x is in two of its base files"),
        ("_base_ = 'mmdet::x.py'", "is in an installed package"),
        ("_base_ = [name]", "_base_ is not a list of file names"),
        ("_base_ = 'base.py'\nx = dict(y=1)", "x is a dict, but 1 in its base file"),
        ("with read_base():\n    from .b import *", "a config of imports (read_base)"),
        ("model = dict(", "not a Python file"),
    ],
)
def test_files_that_cannot_be_read_are_named(values, text, named):
    with pytest.raises(UserError) as error:
        values(text, base="x = 1")
    assert named in str(error.value)


def test_flags_are_checked_and_no_file_is_lost(run, tmp_path, capsys):
    out = run()[3]
    assert main([str(tmp_path / "theirs.py"), "--out", str(out)]) == 2
    assert "is there already; name another file" in capsys.readouterr().err
    assert main([str(tmp_path / "theirs.py"), "--out", str(tmp_path / "new.py"), "--gpus=0"]) == 2
    assert "--gpus 0: at least 1" in capsys.readouterr().err
