"""ScanNet with Pointcept's sparse U-Net: data, schedule and hooks of its PointGroup configuration, our model."""

_base_ = ["../scannet/insseg-pointgroup-v1m1-0-spunet-base.py"]
custom_imports = dict(imports=["probemb_adapters.hosts.pointcept"], allow_failed_imports=False)

model = dict(
    _delete_=True,
    type="ProbEmb-v1m1",
    backbone=dict(
        type="SpUNet-v1m1",
        in_channels=6,
        num_classes=0,
        channels=(32, 64, 128, 256, 256, 128, 96, 96),
        layers=(2, 3, 4, 6, 2, 2, 2, 2),
    ),
    backbone_out_channels=96,
    semantic_num_classes=20,
    segment_ignore_index=(-1, 0, 1),  # wall and floor are the background
    offset_scale=2.0,  # metres
)
