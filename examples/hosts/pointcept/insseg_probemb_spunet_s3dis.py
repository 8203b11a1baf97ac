"""S3DIS with Pointcept's sparse U-Net. All 13 classes have instances, so the background has a column of its own."""

_base_ = ["../s3dis/insseg-pointgroup-v1m1-0-spunet-base.py"]
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
    semantic_num_classes=13,
    segment_ignore_index=(-1,),
    offset_scale=4.0,  # walls and ceilings are large
)
