"""ScanNet's 18 classes with mmdetection3d's PointNet++: beside its configs, as configs/probemb/<this file>.

Points come in metres of the room. `ScanNetInstanceSegDataset` has the classes, `PointSegClassMapping` makes everything
else 18, and `PointSample` gives rooms of equal length.
"""

_base_ = ["../_base_/default_runtime.py", "../_base_/schedules/seg-cosine-200e.py"]
custom_imports = dict(imports=["probemb_adapters.hosts.mmdetection3d"], allow_failed_imports=False)

model = dict(
    type="ProbEmb3D",
    data_preprocessor=dict(type="Det3DDataPreprocessor"),
    backbone=dict(
        type="PointNet2SASSG",
        in_channels=6,
        num_points=(4096, 1024, 256, 64),
        radius=(0.1, 0.2, 0.4, 0.8),
        num_samples=(32, 32, 32, 32),
        sa_channels=((32, 32, 64), (64, 64, 128), (128, 128, 256), (256, 256, 512)),
        fp_channels=((256, 256), (256, 256), (256, 128), (128, 128, 128)),  # back up to all points
        norm_cfg=dict(type="BN2d"),
        sa_cfg=dict(type="PointSAModule", pool_mod="max", use_xyz=True, normalize_xyz=False),
    ),
    head=dict(type="ProbEmb3DHead", in_channels=128, labels="scannet-instances", offset_scale=2.0),
)

num_points = 40_000
load = [
    dict(
        type="LoadPointsFromFile",
        coord_type="DEPTH",
        shift_height=False,
        use_color=True,
        load_dim=6,
        use_dim=[0, 1, 2, 3, 4, 5],
    ),
    dict(
        type="LoadAnnotations3D",
        with_bbox_3d=False,
        with_label_3d=False,
        with_mask_3d=True,
        with_seg_3d=True,
    ),
    dict(type="PointSegClassMapping"),
    dict(type="NormalizePointsColor", color_mean=None),
]
keys = ["points", "pts_semantic_mask", "pts_instance_mask"]
flips = dict(type="RandomFlip3D", sync_2d=False, flip_ratio_bev_horizontal=0.5, flip_ratio_bev_vertical=0.5)
train_pipeline = [
    *load[:3],
    dict(type="PointSample", num_points=num_points),
    flips,
    load[3],
    dict(type="Pack3DDetInputs", keys=keys),
]
test_pipeline = [*load, dict(type="Pack3DDetInputs", keys=keys)]

dataset = dict(
    type="ScanNetInstanceSegDataset",
    data_root="data/scannet/",
    data_prefix=dict(pts="points", pts_instance_mask="instance_mask", pts_semantic_mask="semantic_mask"),
)
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(**dataset, ann_file="scannet_infos_train.pkl", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(**dataset, ann_file="scannet_infos_val.pkl", pipeline=test_pipeline, test_mode=True),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="InstanceSegMetric")
test_evaluator = val_evaluator
