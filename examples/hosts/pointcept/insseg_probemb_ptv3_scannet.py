"""ScanNet with Point Transformer V3: data, schedule and hooks of Pointcept's PointGroup configuration, our model."""

_base_ = ["../scannet/insseg-pointgroup-v1m2-0-ptv3-base.py"]
custom_imports = dict(imports=["probemb_adapters.hosts.pointcept"], allow_failed_imports=False)

model = dict(
    _delete_=True,
    type="ProbEmb-v1m1",
    backbone=dict(
        type="PT-v3m1",
        in_channels=6,
        order=("z", "z-trans", "hilbert", "hilbert-trans"),
        enc_patch_size=(1024, 1024, 1024, 1024, 1024),
        dec_patch_size=(1024, 1024, 1024, 1024),
        enable_flash=True,  # False where flash-attn is not installed, with patches of 128
    ),
    backbone_out_channels=64,
    semantic_num_classes=20,
    segment_ignore_index=(-1, 0, 1),
    offset_scale=2.0,
)
