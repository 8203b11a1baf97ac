"""The interface of mmdetection3d 1.4.0 (fe25f7a) with mmengine 0.10.7, no code of theirs."""
